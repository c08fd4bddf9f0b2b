package smoke

import (
	"strings"
	"testing"

	"banger/internal/testenv"
)

// An image without kmod loads modules too: by name, and when the kernel asks for one.
func TestModulesWithoutKmod(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewWorld(t)
	out := w.Must("vm", "run", "--rm", "--", "sh", "-ec", "modprobe veth; grep -o '^veth' /proc/modules; ls -l /sbin/modprobe; mount -t fuse none /mnt -o fd=0 2>/dev/null || grep -o '^fuse' /proc/modules")
	if !strings.Contains(out, "veth\n") || !strings.Contains(out, "fuse\n") || !strings.Contains(out, "banger") {
		t.Errorf("printed %s", out)
	}
}
