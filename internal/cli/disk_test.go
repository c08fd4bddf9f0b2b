package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiskHelp(t *testing.T) {
	for _, args := range [][]string{{"disk"}, {"disk", "create", "--help"}, {"disk", "write", "--help"}} {
		status, stdout, stderr := run(t, args...)
		if status != 0 || stderr != "" {
			t.Errorf("banger %q: status %d, stderr %q", args, status, stderr)
		}
		golden(t, strings.ReplaceAll(strings.Join(append([]string{"help"}, args...), "-"), "---help", "")+".txt", stdout)
	}
}

func TestDiskUsageErrors(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	for _, tc := range []struct{ args, stderr string }{
		{"disk create", "image to make"},
		{"disk create " + out, "--size is missing"},
		{"disk create " + out + " --size 8X", `"8X"`},
		{"disk create " + out + " --size 1M", "size"},
		{"disk create " + out + " --size 17T", "size"},
		{"disk create " + out + " --size 64M --label 12345678901234567", "label"},
		{"disk create " + out + " --size 64M --owner root", "UID:GID"},
		{"disk create " + out + " --size 64M --owner 1:4294967296", "UID:GID"},
		{"disk create " + out + " --size 64M --from-dir a --from-tar b", "exclude"},
		{"disk create " + out + " --size 64M --from-dir /etc/passwd", "no directory"},
		{"disk ls", "want an image"},
		{"disk cat x", "want an image"},
		{"disk cp x y", "want an image"},
		{"disk write x", "want an image"},
		{"disk write x y --mode 8", "octal"},
		{"disk write x y --mode 10000", "octal"},
		{"disk check x y", "want an image"},
		{"disk df", "want an image"},
	} {
		status, stdout, stderr := run(t, strings.Fields(tc.args)...)
		if status != statusUsage || stdout != "" || !strings.Contains(stderr, tc.stderr) {
			t.Errorf("banger %s: status %d, stdout %q, stderr %q, want %q", tc.args, status, stdout, stderr, tc.stderr)
		}
		if _, err := os.Lstat(out); err == nil {
			t.Errorf("banger %s: it left %s", tc.args, out)
			os.Remove(out)
		}
	}
}
