package guestagent

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/channel"
	"banger/internal/testenv"
)

// TestApplyNetwork sets up a card in a network namespace of its own.
func TestApplyNetwork(t *testing.T) {
	ip := testenv.RequireTool(t, "ip")
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(ip, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("link", "add", "card0", "address", "52:54:00:01:02:03", "type", "veth", "peer", "name", "other0")
	network := &channel.Network{MAC: "52:54:00:01:02:03", Addresses: []netip.Prefix{netip.MustParsePrefix("198.19.0.2/24"), netip.MustParsePrefix("fd00:1::2/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("198.19.0.1"), netip.MustParseAddr("fd00:1::1")}, DNS: []netip.Addr{netip.MustParseAddr("198.19.0.1")}}
	for range 2 {
		if err := applyNetwork(network); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ args, want string }{
		{"link show card0", ",UP"}, {"addr show card0", "inet 198.19.0.2/24"}, {"addr show card0", "inet6 fd00:1::2/64"},
		{"route", "default via 198.19.0.1 dev card0"}, {"-6 route", "default via fd00:1::1 dev card0"},
	} {
		if out := run(strings.Fields(test.args)...); strings.Count(out, test.want) != 1 || strings.Contains(out, "fd00:1::2/64 scope global tentative") {
			t.Errorf("ip %s has not once %q:\n%s", test.args, test.want, out)
		}
	}
	network.MAC = "52:54:00:00:00:00"
	if err := applyNetwork(network); err == nil || !strings.Contains(err.Error(), network.MAC) {
		t.Errorf("without the card: %v", err)
	}
	if err := applyNetwork(&channel.Network{}); err != nil {
		t.Errorf("without a network: %v", err)
	}
}

func TestApplyResolver(t *testing.T) {
	const ours = resolvMark + "nameserver 198.19.0.1\n"
	servers := []netip.Addr{netip.MustParseAddr("198.19.0.1")}
	for _, test := range []struct {
		name         string
		image, upper string // "-": none; "->x": a link
		want         string
	}{
		{"none", "-", "-", ours}, {"of the image", "nameserver 10.0.0.1\n", "-", ours}, {"empty", "", "", ours},
		{"a link to nothing", "->/run/nobody/stub-resolv.conf", "-", ours},
		{"the user's", "nameserver 9.9.9.9\n", "nameserver 9.9.9.9\n", "nameserver 9.9.9.9\n"},
		{"ours of before", resolvMark + "nameserver 1.1.1.1\n", resolvMark + "nameserver 1.1.1.1\n", ours},
		{"ours", ours, ours, ours},
	} {
		dir := t.TempDir()
		path, upper := filepath.Join(dir, "etc", "resolv.conf"), filepath.Join(dir, "upper")
		put := func(path, content string) {
			t.Helper()
			err := os.MkdirAll(filepath.Dir(path), 0o755)
			if link, ok := strings.CutPrefix(content, "->"); ok && err == nil {
				err = os.Symlink(link, path)
			} else if content != "-" && err == nil {
				err = os.WriteFile(path, []byte(content), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		put(path, test.image)
		put(filepath.Join(upper, path), test.upper)
		if err := applyResolver(path, upper, servers); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", test.name, info, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != test.want {
			t.Errorf("%s: %q, %v, want %q", test.name, got, err, test.want)
		}
	}
	if err := applyResolver("/nonexistent/x", "/", nil); err != nil {
		t.Errorf("without a resolver: %v", err)
	}
}
