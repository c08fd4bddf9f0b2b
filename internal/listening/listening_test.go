package listening

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestList(t *testing.T) {
	proc := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(proc, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("net/tcp", head+
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 100 0 0 10 0\n"+
		"   1: 0100007F:1F91 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 112 1 0 100 0 0 10 0\n"+
		"   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 113 1 0 100 0 0 10 0\n")
	write("net/tcp6", head+
		"   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 114 1 0 100 0 0 10 0\n")
	write("77/comm", "evil\x1b[2J\n")
	if err := os.MkdirAll(filepath.Join(proc, "77/fd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("socket:[111]", filepath.Join(proc, "77/fd/3")); err != nil {
		t.Fatal(err)
	}
	got, err := List(proc)
	if err != nil {
		t.Fatal(err)
	}
	want := []Listener{
		{Address: netip.IPv4Unspecified(), Port: 22},
		{Address: netip.MustParseAddr("127.0.0.1"), Port: 8080, Process: "evil\x1b[2J", PID: 77, UID: 1000},
		{Address: netip.IPv6Loopback(), Port: 8080},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

func TestOwner(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	for _, address := range []string{"127.0.0.1", "0.0.0.0"} {
		if got := Owner(netip.MustParseAddr(address), port); !strings.Contains(got, "listening.test (process ") {
			t.Errorf("Owner(%s, %d) = %q, want this test", address, port, got)
		}
	}
	if got := Owner(netip.MustParseAddr("127.0.0.2"), port); got != "" {
		t.Errorf("Owner of another address = %q, want nobody", got)
	}
}

// What is taken is in the table: the same endpoint, written back.
func FuzzParseEndpoint(f *testing.F) {
	f.Add("0100007F:0050")
	f.Add("00000000000000000000000001000000:1F90")
	f.Add("0000000000000000FFFF00000100007F:0016")
	f.Fuzz(func(t *testing.T, text string) {
		address, _, err := parseEndpoint(text)
		if err != nil {
			return
		}
		host, _, _ := strings.Cut(text, ":")
		if !address.IsValid() || len(host) != 8 && len(host) != 32 {
			t.Errorf("parseEndpoint(%q) = %v", text, address)
		}
	})
}
