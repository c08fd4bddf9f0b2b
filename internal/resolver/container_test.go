package resolver

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"banger"
	"banger/internal/dns"
	"banger/internal/testenv"
)

const (
	serverRole  = "BANGER_TEST_ROLE"
	otherServer = "BANGER_TEST_OTHER" // address of the server for other names
)

// probeScript sets names up by banger and takes it back, and tells what a name is meanwhile: on a computer that asks nobody else, on one whose
// network has a resolver, and on one that has a resolver for the whole system.
const probeScript = `mkfifo /test/started
` + serverRole + `=1 /test/program -test.run='^TestContainerRole$' >&2 &
read -r server </test/started
# Without a network systemd-resolved asks nobody.
ip link add up0 type veth peer name up1
ip addr add 192.0.2.2/24 dev up0
ip link set up1 up
ip link set up0 up
mkdir -p /run/systemd/system/systemd-resolved.service.d # that allows five starts in ten seconds
printf '[Unit]\nStartLimitIntervalSec=0\n' >/run/systemd/system/systemd-resolved.service.d/often.conf
systemctl daemon-reload
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
name() { echo "$1: $(getent hosts $1 | cut -d' ' -f1)"; }
state() { find /etc/systemd /etc/dnsmasq.d /etc/NetworkManager /etc/hosts -type f 2>/dev/null | sort | xargs md5sum; }
network() { [ $case != link ] || resolvectl dns up0 192.0.2.2:42070; }
for case in alone link global; do
  [ $case != global ] || printf '[Resolve]\nDNS=127.0.0.1:42070\n' >/etc/systemd/resolved.conf
  systemctl restart systemd-resolved
  network
  state >/test/before
  echo "== $case"
  name devbox.vm
  /test/banger dns setup --server $server --host devbox=127.88.1.2 2>&1 | head -1
  for n in 1 2; do /test/banger dns setup --install --server $server --host devbox=127.88.1.2; done
  network
  for n in 1 2 3; do name devbox.vm; [ $case = alone ] || name www.example.test; done | sort -u
  name nobody.vm
  resolvectl status >&2
  /test/banger dns setup --uninstall
  network
  name devbox.vm
  state | cmp - /test/before && echo as before
done
`

// With a real systemd-resolved, names in .vm are banger's from the set-up to its end, and all others are asked where they were before. The
// container is this system's own tree below an overlay in memory.
func TestResolvedInAContainer(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	_, deb := testenv.AptDownload(t, "systemd-resolved")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, why := testenv.Container{Script: probeScript, Files: map[string]string{"resolved.deb": string(deb)}, Prepare: `
		dpkg-deb --fsys-tarfile "$0/resolved.deb" | tar -x -C /mnt/root --keep-directory-symlink
		chroot /mnt/root useradd --system --no-create-home systemd-resolve 2>/dev/null || true`,
		Binds: map[string]string{"program": self, "banger": filepath.Join(testenv.Binaries(t), "banger")}}.Run(t)
	by := func(m Method) string {
		return "names are resolved by " + string(m) + " here; a root shell would do this:"
	}
	const has, no, other, nobody, after = "devbox.vm: 127.88.1.2", "devbox.vm: ", "www.example.test: 192.0.2.7", "nobody.vm: ", "as before"
	want := strings.Join([]string{"== alone", no, by(Resolved), has, nobody, no, after, "== link", no, by(Resolved), has, other, nobody, no, after,
		"== global", no, by(Hosts), has, other, nobody, no, after, ""}, "\n")
	if out != want {
		t.Errorf("the container says\n%s\nwant\n%s\nerrors:\n%s", out, want, why)
	}
}

// forwarderScript sets names up by banger and takes it back on a computer whose programs ask a dnsmasq, which asks 192.0.2.3. begin starts
// that.
const forwarderScript = `ip link add up0 type veth peer name up1
ip addr add 192.0.2.2/24 dev up0
ip addr add 192.0.2.3/24 dev up0
ip link set up1 up
ip link set up0 up
mkfifo /test/started
` + serverRole + `=1 ` + otherServer + `=192.0.2.3:53 /test/program -test.run='^TestContainerRole$' >&2 &
read -r server </test/started
rm -f /etc/resolv.conf
begin
name() { echo "$1: $(getent hosts $1 | cut -d' ' -f1)"; }
state() { find /etc/systemd /etc/dnsmasq.d /etc/NetworkManager /etc/hosts -type f 2>/dev/null | sort | xargs md5sum; }
# A NetworkManager that is restarted goes on with its dnsmasq for a moment.
until_it() { for n in $(seq 300); do "$@" >/dev/null && return; sleep 0.1; done; }
unknown() { ! getent hosts $1; }
until_it getent hosts www.example.test
cat /etc/resolv.conf >&2
state >/test/before
name devbox.vm
/test/banger dns setup --server $server --host devbox=127.88.1.2 2>&1 | head -1
for n in 1 2; do /test/banger dns setup --install --server $server --host devbox=127.88.1.2; done
until_it getent hosts devbox.vm
for n in 1 2 3; do name devbox.vm; name www.example.test; done | sort -u
name nobody.vm
/test/banger dns setup --uninstall
until_it unknown devbox.vm
name devbox.vm
until_it getent hosts www.example.test
state | cmp - /test/before && echo as before
`

// With a real dnsmasq that a computer's programs ask, started by itself or by a real NetworkManager, names in .vm are banger's from the set-up
// to its end, and all others are asked where they were before.
func TestDnsmasqInAContainer(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binds := map[string]string{"program": self, "banger": filepath.Join(testenv.Binaries(t), "banger")}
	for _, tc := range []struct {
		method   Method
		packages []string
		begin    string
	}{
		{Dnsmasq, []string{"dnsmasq-base", "dnsmasq"}, `begin() {
  printf 'no-resolv\nserver=192.0.2.3\nlisten-address=127.0.0.1\nbind-interfaces\n' >/etc/dnsmasq.conf
  echo nameserver 127.0.0.1 >/etc/resolv.conf
  systemctl start dnsmasq
}
`},
		{NetworkManager, []string{"dnsmasq-base", "libbluetooth3", "libmm-glib0", "libndp0", "libnewt0.52", "libnm0", "libteamdctl0", "network-manager"}, `begin() {
  printf '[main]\nplugins=keyfile\ndns=dnsmasq\nrc-manager=file\n[keyfile]\nunmanaged-devices=interface-name:up1\n' >/etc/NetworkManager/NetworkManager.conf
  printf '[connection]\nid=up\ntype=ethernet\ninterface-name=up0\n[ipv4]\nmethod=manual\naddress1=192.0.2.2/24\naddress2=192.0.2.3/24\ndns=192.0.2.3;\n[ipv6]\nmethod=disabled\n' >/etc/NetworkManager/system-connections/up.nmconnection
  chmod 600 /etc/NetworkManager/system-connections/up.nmconnection
  mkdir -p /run/systemd/system/NetworkManager.service.d
  printf '[Unit]\nStartLimitIntervalSec=0\n' >/run/systemd/system/NetworkManager.service.d/often.conf
  systemctl daemon-reload
  systemctl start NetworkManager
  nmcli connection up up >&2
}
`},
	} {
		t.Run(string(tc.method), func(t *testing.T) {
			files := map[string]string{}
			for _, name := range tc.packages {
				_, deb := testenv.AptDownload(t, name)
				files[name+".deb"] = string(deb)
			}
			out, why := testenv.Container{Script: tc.begin + forwarderScript, Files: files, Binds: binds, Prepare: `
				for deb in "$0"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x -C /mnt/root --keep-directory-symlink; done
				chroot /mnt/root ldconfig
				chroot /mnt/root useradd --system --no-create-home dnsmasq 2>/dev/null || true`}.Run(t)
			want := strings.Join([]string{"devbox.vm: ", "names are resolved by " + string(tc.method) + " here; a root shell would do this:", "devbox.vm: 127.88.1.2",
				"www.example.test: 192.0.2.7", "nobody.vm: ", "devbox.vm: ", "as before", ""}, "\n")
			if out != want {
				t.Errorf("the container says\n%s\nwant\n%s\nerrors:\n%s", out, want, why)
			}
		})
	}
}

// TestContainerRole is what the tests in containers run there: banger's server for .vm, and another one for other names.
func TestContainerRole(t *testing.T) {
	if os.Getenv(serverRole) == "" {
		t.Skipf("needs a test in a container to start it")
	}
	lookup := func(_ context.Context, name string) (netip.Addr, error) {
		if name == "devbox" {
			return netip.MustParseAddr("127.88.1.2"), nil
		}
		return netip.Addr{}, banger.ErrNotFound
	}
	s, err := dns.Listen(dns.Config{Lookup: lookup, Log: slog.New(slog.DiscardHandler)}, dns.DefaultPort)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	serveOther(t, cmp.Or(os.Getenv(otherServer), "0.0.0.0:42070"))
	if err := os.WriteFile("/test/started", []byte(s.Address()+"\n"), 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Hour) // it is ended before
}

// serveOther is a resolver that knows www.example.test, and that there is no vm.
func serveOther(t *testing.T, address string) {
	server := &wire.Server{Addr: address, Net: "udp", Handler: wire.HandlerFunc(func(w wire.ResponseWriter, query *wire.Msg) {
		reply := new(wire.Msg).SetReply(query)
		switch q := query.Question[0]; {
		case q.Name != "www.example.test.":
			reply.Rcode = wire.RcodeNameError
		case q.Qtype == wire.TypeA:
			reply.Answer = []wire.RR{&wire.A{Hdr: wire.RR_Header{Name: q.Name, Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 5}, A: net.IPv4(192, 0, 2, 7)}}
		}
		w.WriteMsg(reply)
	})}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { t.Error(server.ListenAndServe()) }()
	<-started
}
