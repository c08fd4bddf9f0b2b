package resolver

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger"
	"banger/internal/testenv"
)

func hostWith(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var server = netip.MustParseAddrPort("127.0.0.1:42069")

func TestDetect(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  Method
	}{
		{"nothing", nil, Hosts},
		{"a resolver elsewhere", map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\n"}, Hosts},
		{"systemd-resolved", map[string]string{"run/systemd/resolve/stub-resolv.conf": "", "etc/resolv.conf": "nameserver 127.0.0.53\n"}, Resolved},
		{"systemd-resolved by nsswitch", map[string]string{"run/systemd/resolve/stub-resolv.conf": "", "etc/nsswitch.conf": "hosts: files resolve [!UNAVAIL=return] dns\n"}, Resolved},
		{"systemd-resolved by nsswitch that takes the servers of another file", map[string]string{"run/systemd/resolve/stub-resolv.conf": "",
			"etc/nsswitch.conf": "hosts: files resolve [!UNAVAIL=return] dns\n", "etc/resolv.conf": "nameserver 192.0.2.1\n"}, Hosts},
		{"systemd-resolved with banger's server", map[string]string{"run/systemd/resolve/stub-resolv.conf": "", "etc/resolv.conf": "nameserver 127.0.0.53\n",
			"etc/systemd/resolved.conf": "[Resolve]\n#DNS=192.0.2.1\nDNS=\n", resolvedFile: "[Resolve]\nDNS=127.0.0.1:42069\n"}, Resolved},
		{"systemd-resolved with another server for all", map[string]string{"run/systemd/resolve/stub-resolv.conf": "", "etc/resolv.conf": "nameserver 127.0.0.53\n",
			"etc/systemd/resolved.conf.d/dns.conf": "[Resolve]\nDNS = 192.0.2.1\n"}, Hosts},
		{"systemd-resolved that nobody asks", map[string]string{"run/systemd/resolve/stub-resolv.conf": "", "etc/resolv.conf": "nameserver 192.0.2.1\n"}, Hosts},
		{"NetworkManager with dnsmasq", map[string]string{"run/NetworkManager/x": "", "etc/NetworkManager/conf.d/dns.conf": "[main]\ndns=dnsmasq\n"}, NetworkManager},
		{"NetworkManager alone", map[string]string{"run/NetworkManager/x": "", "etc/NetworkManager/NetworkManager.conf": "[main]\n"}, Hosts},
		{"dnsmasq", map[string]string{"run/dnsmasq/dnsmasq.pid": "1", "etc/resolv.conf": "nameserver 127.0.0.1\n"}, Dnsmasq},
	} {
		if got := Detect(hostWith(t, tc.files)); got != tc.want {
			t.Errorf("%s: Detect = %s, want %s", tc.name, got, tc.want)
		}
	}
}

// Whatever is put in place is there once, is told to the resolver once, and is gone after Uninstall.
func TestInstall(t *testing.T) {
	const hosts = "127.0.0.1 localhost\n# end, without a newline"
	for _, method := range Methods {
		t.Run(string(method), func(t *testing.T) {
			root := hostWith(t, map[string]string{"etc/hosts": hosts})
			var ran []string
			run := func(_ context.Context, argv ...string) error {
				ran = append(ran, strings.Join(argv, " "))
				return nil
			}
			plan, err := For(method, server, []Host{{"devbox", netip.MustParseAddr("127.88.1.2")}})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := plan.Install(t.Context(), root, run); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(filepath.Join(root, plan.File))
			want := map[Method]string{Resolved: "DNS=127.0.0.1:42069\nDomains=~vm\n", NetworkManager: "server=/vm/127.0.0.1#42069\n",
				Dnsmasq: "server=/vm/127.0.0.1#42069\n", Hosts: "127.88.1.2\tdevbox.vm\n"}[method]
			if err != nil || strings.Count(string(text), want) != 1 {
				t.Errorf("%s: %q, %v, want %q once", plan.File, text, err, want)
			}
			if len(ran) != len(plan.Commands) {
				t.Errorf("ran %q, want %q", ran, plan.Commands)
			}
			if !strings.Contains(plan.Script(), want) {
				t.Errorf("the script lacks %q: %s", want, plan.Script())
			}
			if got, current, err := Installed(root, server); err != nil || got.Method != method || !current || !got.Has("devbox") || got.Has("dev") == (method == Hosts) {
				t.Errorf("Installed = %+v, %v, %v, want %s", got, current, err, method)
			}
			if _, current, err := Installed(root, netip.AddrPortFrom(server.Addr(), 1)); err != nil || current != (method == Hosts) {
				t.Errorf("Installed for another server = %v, %v", current, err)
			}
			ran = nil
			if err := Uninstall(t.Context(), root, run); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(root, plan.File)); method != Hosts && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after Uninstall %s: %v", plan.File, err)
			}
			if text, err := os.ReadFile(filepath.Join(root, "etc/hosts")); err != nil || string(text) != hosts {
				t.Errorf("after Uninstall /etc/hosts is %q, %v", text, err)
			}
			if got, _, err := Installed(root, server); !errors.Is(err, banger.ErrNotFound) {
				t.Errorf("after Uninstall Installed = %+v, %v", got, err)
			}
			if len(ran) != len(plan.Commands) {
				t.Errorf("Uninstall ran %q, want %q", ran, plan.Commands)
			}
		})
	}
}

func TestFor(t *testing.T) {
	if _, err := For("nonsense", server, nil); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("For(nonsense) = %v, want ErrInvalid", err)
	}
	if _, err := For(Hosts, server, []Host{{"a\n1.2.3.4 evil", netip.MustParseAddr("127.88.1.2")}}); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("For a name with a newline = %v, want ErrInvalid", err)
	}
}

// A real dnsmasq with what NetworkManager and dnsmasq get: names in .vm are answered by the server, others are not asked there.
func TestDnsmasq(t *testing.T) {
	program := testenv.RequireTool(t, "dnsmasq")
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 16)
	authority := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		asked <- query.Question[0].Name
		reply := new(dns.Msg).SetReply(query)
		reply.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IPv4(127, 88, 1, 2)}}
		w.WriteMsg(reply)
	})}
	go authority.ActivateAndServe()
	defer authority.Shutdown()
	plan, err := For(Dnsmasq, packets.LocalAddr().(*net.UDPAddr).AddrPort(), nil)
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	free.Close()
	config := filepath.Join(t.TempDir(), "banger.conf")
	if err := os.WriteFile(config, []byte(plan.Text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "--keep-in-foreground", "--conf-file="+config, "--no-resolv", "--no-hosts", "--no-daemon", "--user=root",
		"--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file=", "--port="+strconv.Itoa(port))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	testenv.WaitFor(t, 20*time.Second, "dnsmasq to answer", func() bool {
		reply, err := dns.Exchange(new(dns.Msg).SetQuestion("devbox.vm.", dns.TypeA), at)
		return err == nil && len(reply.Answer) == 1 && strings.HasSuffix(reply.Answer[0].String(), "\t127.88.1.2")
	})
	if reply, err := dns.Exchange(new(dns.Msg).SetQuestion("example.org.", dns.TypeA), at); err != nil || reply.Rcode != dns.RcodeRefused {
		t.Errorf("another name = %v, %v, want it refused\n%s", reply, err, log.String())
	}
	for len(asked) > 0 {
		if name := <-asked; !strings.HasSuffix(name, ".vm.") {
			t.Errorf("the server for .vm was asked for %s", name)
		}
	}
}
