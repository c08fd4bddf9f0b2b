package smoke

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/testenv"
)

// get is a guest's command that asks a web server by HTTP for its name and address. %s and %s are the host and the port.
const get = `exec 3<>/dev/tcp/%s/%s && printf 'GET / HTTP/1.0\r\nHost: x\r\n\r\n' >&3 && tail -n1 <&3`

func getFrom(host string) string { return fmt.Sprintf(get, host, "80") }

// inside runs a script in a VM and gives its output and whether it succeeded.
func inside(w *testenv.World, vm, script string) (string, bool) {
	r := w.Run("vm", "exec", vm, "--", "timeout", "60", "bash", "-c", script)
	return strings.TrimSpace(r.Stdout + r.Stderr), r.Status == 0
}

// wants runs a script in a VM and checks that it works, or is refused, and quickly.
func wants(t *testing.T, w *testenv.World, vm, script, want string) {
	t.Helper()
	out, ok := inside(w, vm, script)
	if !strings.Contains(out, want) || ok == (want == "refused" || want == "not known" || want == "reset") {
		t.Errorf("%s: %s\nprinted %q, want %q", vm, script, out, want)
	}
}

func TestNetworkFull(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewOnlineWorld(t)
	w.Must("vm", "run", "--name", "box", "--", "true")
	wants(t, w, "box", "cat /etc/resolv.conf; cat /sys/class/net/eth0/mtu", "nameserver 198.19.0.1\n65520")
	wants(t, w, "box", "getent ahostsv4 www.example.test", testenv.OriginAddr)
	wants(t, w, "box", getFrom("www.example.test"), "x at "+testenv.OriginAddr)
	wants(t, w, "box", getFrom(testenv.OriginAddr6), "x at "+testenv.OriginAddr6)
	wants(t, w, "box", "getent hosts nothing.example.test || echo not known; false", "not known")

	// Half-close: the server counts until the end, then answers. And 32 MiB arrive.
	perl := `perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new("` + testenv.OriginAddr + `:9") or die "$!"; print $s "x" x 65536 for 1..512; shutdown $s, 1; print <$s>'`
	wants(t, w, "box", perl, fmt.Sprint(32<<20))

	// What no guest reaches: the host, its neighbours, private networks, the cloud's metadata.
	listen, err := testenv.ServeLine("203.0.113.1:8080", "the host")
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	for _, addr := range []string{"203.0.113.1/8080", "192.0.2.1/8080", testenv.LANAddr + "/80", testenv.PrivateAddr + "/80", testenv.MetaAddr + "/80", "198.19.0.1/8080", "198.19.0.1/22"} {
		wants(t, w, "box", "exec 3<>/dev/tcp/"+addr, "refused")
	}
	wants(t, w, "box", getFrom("private.example.test"), "refused")
	if out := w.Must("vm", "net", "box", "log", "--denied"); !strings.Contains(out, "private.example.test:80 (10.9.9.9): 10.9.9.9 is a private address") || !strings.Contains(out, "169.254.169.254:80") {
		t.Errorf("the log of denials:\n%s", out)
	}
	if out := w.Must("vm", "net", "box", "log"); !strings.Contains(out, "www.example.test:80 ("+testenv.OriginAddr+")") || !strings.Contains(out, "sent 32 MiB") {
		t.Errorf("the log:\n%s", out)
	}
	checkUnprivileged(t, w)
	w.Must("vm", "stop", "box")
	if out := w.Must("vm", "net", "box", "log", "--json"); !strings.Contains(out, `"name":"www.example.test"`) {
		t.Errorf("the log of a stopped VM:\n%s", out)
	}
	w.Must("vm", "start", "box")
	wants(t, w, "box", getFrom("www.example.test"), "x at "+testenv.OriginAddr)
}

func TestNetworkPolicies(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewOnlineWorld(t)
	host, err := testenv.ServeLine("127.0.0.1:8081", "the host")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	w.Must("vm", "run", "--name", "box", "--net", "allow=www.example.test,*.sub.example.test,10.9.9.9:80", "--allow-host", "8081", "--", "true")
	if out := w.Must("vm", "show", "box"); !strings.Contains(out, "allow=www.example.test,*.sub.example.test,10.9.9.9:80,host:8081") {
		t.Errorf("vm show:\n%s", out)
	}
	wants(t, w, "box", getFrom("www.example.test"), "x at "+testenv.OriginAddr)
	wants(t, w, "box", "getent ahostsv4 www.example.test", "198.18.")
	wants(t, w, "box", "cat < /dev/tcp/host.banger/8081", "the host")
	wants(t, w, "box", getFrom(testenv.PrivateAddr), "x at "+testenv.PrivateAddr)
	for _, target := range []string{testenv.OriginAddr + "/80", testenv.OtherAddr + "/80", testenv.DNSAddr + "/53", "host.banger/8082"} {
		wants(t, w, "box", "exec 3<>/dev/tcp/"+target, "refused")
	}
	if out, ok := inside(w, "box", "getent hosts other.example.test"); ok {
		t.Errorf("a name that no rule allows is %s", out)
	}
	fetch := func(name string) string {
		return "/usr/lib/apt/apt-helper -o Acquire::https::Verify-Peer=false -o Acquire::https::Verify-Host=false -o Acquire::Retries=0 download-file https://" + name + "/ /tmp/page && cat /tmp/page"
	}
	wants(t, w, "box", fetch("www.example.test"), "www.example.test at "+testenv.OriginAddr)
	// A name in the hello that is not the one that was looked up.
	if out, ok := inside(w, "box", "echo \"$(getent ahostsv4 www.example.test | head -n1 | cut -d' ' -f1) other.example.test\" >>/etc/hosts; "+fetch("other.example.test")+"; status=$?; sed -i '/other.example.test/d' /etc/hosts; exit $status"); ok {
		t.Errorf("a name is reached by the address of another one: %s", out)
	}
	out := w.Must("vm", "net", "box", "log", "--denied")
	for _, line := range []string{"dns  other.example.test: no rule allows it", `www.example.test:443 (203.0.113.10): the TLS client wants another name: "other.example.test"`, testenv.OriginAddr + ":80"} {
		if !strings.Contains(out, line) {
			t.Errorf("the log of denials has no %q:\n%s", line, out)
		}
	}

	// Changes of a running VM.
	w.Must("vm", "net", "box", "set", "none")
	if out, ok := inside(w, "box", getFrom("www.example.test")); ok {
		t.Errorf("with none: %s", out)
	}
	if out := w.Must("vm", "net", "box", "allow", "*.example.test"); out != "allow=*.example.test\n" {
		t.Errorf("vm net allow printed %q", out)
	}
	wants(t, w, "box", getFrom("other.example.test"), "x at "+testenv.OtherAddr)
	w.Must("vm", "net", "box", "set", "full")
	wants(t, w, "box", getFrom(testenv.OtherAddr), "x at "+testenv.OtherAddr)
	for target, status := range map[string]int{"https://" + testenv.OtherAddr: 0, "http://127.0.0.1": 6, testenv.MetaAddr: 6, "http://203.0.113.1": 6} {
		if r := w.Run("vm", "net", "box", "check", target); r.Status != status {
			t.Errorf("vm net check %s: status %d, want %d: %s", target, r.Status, status, r.Stdout)
		}
	}
	if r := w.Run("vm", "net", "box", "allow", "10.0.0.0/33"); r.Status != 2 || !strings.Contains(r.Stderr, "at character 1") {
		t.Errorf("a bad rule: %d, %s", r.Status, r.Stderr)
	}
}

// A new supervisor takes the network up again: connections were reset, the guest runs on.
func TestNetworkAfterTheSupervisorsDeath(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewOnlineWorld(t)
	w.Must("vm", "run", "--name", "box", "--net", "allow=www.example.test", "--", "true")
	wants(t, w, "box", getFrom("www.example.test"), "x at "+testenv.OriginAddr)
	w.Must("vm", "net", "box", "allow", "other.example.test")
	boot, _ := inside(w, "box", "cat /proc/sys/kernel/random/boot_id")
	var detail struct {
		PIDs map[string]int `json:"pids"`
	}
	w.JSON(&detail, "vm", "show", "box")
	if err := syscall.Kill(detail.PIDs["banger-machine"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.WaitFor(t, 2*60e9, "the VM to answer again", func() bool {
		return w.Run("vm", "exec", "box", "--", "true").Status == 0
	})
	wants(t, w, "box", getFrom("www.example.test"), "x at "+testenv.OriginAddr)
	wants(t, w, "box", getFrom("other.example.test"), "x at "+testenv.OtherAddr)
	wants(t, w, "box", "exec 3<>/dev/tcp/"+testenv.OriginAddr+"/80", "refused")
	if again, _ := inside(w, "box", "cat /proc/sys/kernel/random/boot_id"); again != boot || boot == "" {
		t.Errorf("boot %q, then %q", boot, again)
	}
}

func TestNetworkBetweenVMs(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewOnlineWorld(t)
	w.Must("vm", "run", "--name", "db", "--", "true")
	server := exec.Command(filepath.Join(w.Bin, "banger"), "vm", "exec", "db", "--", "perl", "-MIO::Socket::INET", "-e",
		`$l = IO::Socket::INET->new(LocalPort => 5432, Listen => 5, ReuseAddr => 1) or die; $| = 1; print "up\n"; while ($c = $l->accept) { print $c "from db\n"; close $c }`)
	server.Env, server.Dir = w.Command(t.Context()).Env, w.State
	w.User.As(server)
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer server.Process.Kill()
	waitLine(t, out, "up")
	w.Must("vm", "run", "--name", "web", "--net", "allow=vm:db:5432", "--", "true")
	wants(t, w, "web", "cat < /dev/tcp/db.vm/5432", "from db")
	wants(t, w, "web", "cat < /dev/tcp/db.vm/22", "refused")
	w.Must("vm", "net", "web", "set", "full")
	if out, ok := inside(w, "web", "cat < /dev/tcp/db.vm/5432"); ok {
		t.Errorf("without a rule: %s", out)
	}
}

// A rule for a VM reaches who has its name now, also while the supervisor of who had it before hangs.
func TestNetworkRenamedVM(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewOnlineWorld(t)
	serve := func(vm, line string) {
		t.Helper()
		wants(t, w, vm, `setsid perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(LocalPort => 5432, Listen => 5, ReuseAddr => 1) or die; open $up, ">", "/root/up"; close $up; while ($c = $l->accept) { print $c "`+
			line+`\n"; close $c }' >/dev/null 2>&1 </dev/null & while ! [ -e /root/up ]; do sleep 0.1; done; echo up`, "up")
	}
	w.Must("vm", "run", "--name", "db", "--", "true")
	serve("db", "the first")
	w.Must("vm", "run", "--name", "web", "--net", "allow=vm:db:5432,vm:old:5432", "--", "true")
	const ask = "cat < /dev/tcp/db.vm/5432"
	wants(t, w, "web", ask, "the first")
	machine := showVM(w, "db").PIDs["banger-machine"]
	if err := syscall.Kill(machine, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(machine, syscall.SIGCONT) })
	w.Must("vm", "rename", "db", "old")
	wants(t, w, "web", ask, "refused")
	w.Must("vm", "run", "--name", "db", "--", "true")
	wants(t, w, "web", ask, "refused")
	serve("db", "the second")
	wants(t, w, "web", ask, "the second")
	if err := syscall.Kill(machine, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	wants(t, w, "web", "cat < /dev/tcp/old.vm/5432", "the first")
	wants(t, w, "web", ask, "the second")
}

// An image of one static program, which knows nothing of banger, has the same network; a DHCP client there is told what it has.
func TestNetworkInAnyImage(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewOnlineWorld(t)
	if r := w.RunInput(busyboxTar(t), "image", "import", "-", "--name", "box"); r.Status != 0 {
		t.Fatal(r.Stderr)
	}
	w.Must("vm", "run", "--name", "one", "--image", "box", "--", "/bin/busybox", "true")
	for _, test := range []struct{ args, want string }{
		{"wget -qO- http://www.example.test/", "www.example.test at " + testenv.OriginAddr},
		{"nslookup six.example.test", testenv.OriginAddr6},
		{"ping -c 1 " + testenv.OriginAddr, "1 packets received"},
		{"ping -c 1 198.19.0.1", "1 packets received"},
		{"udhcpc -i eth0 -n -q -f -s /bin/busybox", "lease of 198.19.0.2 obtained"},
	} {
		out := w.Run(append([]string{"vm", "exec", "one", "--", "/bin/busybox"}, strings.Fields(test.args)...)...)
		if !strings.Contains(out.Stdout+out.Stderr, test.want) {
			t.Errorf("%s printed %q, want %q", test.args, out.Stdout+out.Stderr, test.want)
		}
	}
}

// An image with an init and network programs of its own: whichever of them is on, the network is what the agent has made of it.
func TestNetworkUnderSystemd(t *testing.T) { // alone: as TestDefaultImage
	testenv.RequireTier(t, "smoke")
	w := testenv.NewWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	wantStatus(t, testenv.Capture(t, w.Command(ctx, "image", "build", "nets", "--from", "debian:bookworm", "--packages",
		"systemd,systemd-sysv,dbus,udev,systemd-resolved,ifupdown,isc-dhcp-client,iproute2")), 0)
	w.Must("daemon", "stop")
	w.GoOnline()
	w.Must("vm", "run", "--name", "box", "--image", "nets", "--memory", "512M", "--", "true")
	check := func(what string) {
		t.Helper()
		wants(t, w, "box", "ip -br addr show eth0", "198.19.0.2/24 ")
		wants(t, w, "box", "ip -br addr show eth0", "fd62:616e:6765:7200::2/64")
		wants(t, w, "box", "ip route; ip -6 route", "default via 198.19.0.1 dev eth0")
		wants(t, w, "box", "ip -6 route", "default via fd62:616e:6765:7200::1 dev eth0")
		wants(t, w, "box", "getent ahostsv4 www.example.test", testenv.OriginAddr)
		wants(t, w, "box", getFrom("www.example.test"), "x at ")
		wants(t, w, "box", getFrom(testenv.OriginAddr6), "x at "+testenv.OriginAddr6)
		wants(t, w, "box", "resolvectl --cache=no query www.example.test", testenv.OriginAddr)
		if out := w.Run("vm", "exec", "box", "--", "systemctl", "--failed", "--no-legend", "--plain").Stdout; out != "" {
			t.Errorf("%s: failed units: %s", what, out)
		}
	}
	check("what the packages enable")
	const all = `set -e
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' > /etc/systemd/network/20-wired.network
printf 'auto eth0\niface eth0 inet dhcp\n' > /etc/network/interfaces
systemctl enable -q systemd-networkd systemd-networkd-wait-online
printf '[Unit]\nWants=network-online.target\nAfter=network-online.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/online.service
systemctl enable -q online`
	wants(t, w, "box", all, "")
	w.Must("vm", "restart", "box")
	wantStatus(t, w.Run("vm", "exec", "box", "--", "timeout", "400", "systemctl", "is-system-running", "--wait"), 0)
	check("all of them at once")
	wants(t, w, "box", "systemctl is-active online systemd-networkd networking", "active\nactive\nactive")
	wants(t, w, "box", "networkctl --no-legend list eth0", "routable")
}
