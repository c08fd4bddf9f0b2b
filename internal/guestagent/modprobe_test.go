package guestagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseModprobe(t *testing.T) {
	for _, test := range []struct {
		args string
		want modprobeArgs
		ok   bool
	}{
		{"-q -- fs-overlay", modprobeArgs{names: []string{"fs-overlay"}, quiet: true}, true},
		{"veth", modprobeArgs{names: []string{"veth"}}, true},
		{"-va bridge nf_nat br_netfilter", modprobeArgs{names: []string{"bridge", "nf_nat", "br_netfilter"}}, true},
		{"--all bridge --quiet nf_nat", modprobeArgs{names: []string{"bridge", "nf_nat"}, quiet: true}, true},
		{"loop max_loop=8 max_part=3", modprobeArgs{names: []string{"loop"}, params: "max_loop=8 max_part=3"}, true},
		{"--dry-run loop", modprobeArgs{names: []string{"loop"}, dry: true}, true},
		{"-- -odd", modprobeArgs{names: []string{"-odd"}}, true},
		{"-r veth", modprobeArgs{}, false},
		{"--remove veth", modprobeArgs{}, false},
		{"", modprobeArgs{}, false},
		{"-q", modprobeArgs{}, false},
	} {
		got, err := parseModprobe(strings.Fields(test.args))
		if (err == nil) != test.ok {
			t.Errorf("parseModprobe(%q) = %v, want ok %v", test.args, err, test.ok)
			continue
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(modprobeArgs{})); test.ok && diff != "" {
			t.Errorf("parseModprobe(%q) (-want +got):\n%s", test.args, diff)
		}
	}
}

// Every word is an option, a module or a parameter.
func FuzzParseModprobe(f *testing.F) {
	f.Add("-q -- fs-overlay")
	f.Add("loop max_loop=8")
	f.Add("-va a b")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		m, err := parseModprobe(args)
		if err != nil {
			return
		}
		left := len(args) - len(m.names) - len(strings.Fields(m.params))
		if len(m.names) == 0 || left < 0 || !strings.Contains(line, "-") && left != 0 {
			t.Errorf("parseModprobe(%q) = %+v", args, m)
		}
	})
}

func TestMaskStaticNodes(t *testing.T) {
	dir := t.TempDir()
	kmod, units := filepath.Join(dir, "kmod"), filepath.Join(dir, "run/systemd/system")
	if err := os.WriteFile(kmod, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := maskStaticNodes(units, filepath.Join(dir, "none"), kmod); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(units); !os.IsNotExist(err) {
		t.Errorf("with kmod: %v, want nothing made", err)
	}
	if err := maskStaticNodes(units, filepath.Join(dir, "none")); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(filepath.Join(units, staticNodes)); err != nil || to != "/dev/null" {
		t.Errorf("without kmod: a link to %q, %v, want /dev/null", to, err)
	}
}
