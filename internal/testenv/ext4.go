package testenv

import (
	"bytes"
	"os/exec"
	"testing"
)

// CheckExt4 lets e2fsck judge an image. Its exit status alone does not do: with an unreplayed journal it says 0 and has
// looked at nothing.
func CheckExt4(t testing.TB, image string) {
	t.Helper()
	tool := RequireTool(t, "e2fsck")
	out, err := exec.Command(tool, "-fn", image).CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("e2fsck -fn %s: %v\n%s", image, err, out)
	case bytes.Contains(out, []byte("Fix?")), bytes.Contains(out, []byte("WARNING")), bytes.Contains(out, []byte("skipping journal recovery")):
		t.Errorf("e2fsck -fn %s is not clean:\n%s", image, out)
	}
}
