package ext4_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"banger/internal/ext4"
)

func TestHashAgreesWithDebugfs(t *testing.T) {
	debugfs, err := exec.LookPath("debugfs")
	if err != nil {
		t.Skipf("needs debugfs: %v", err)
	}
	const id = "01020304-0506-0708-090a-0b0c0d0e0f10"
	seed := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	for _, n := range []int{1, 2, 3, 4, 5, 8, 31, 32, 33, 63, 64, 65, 200, 255} {
		name := strings.Repeat("abcdefghijklm", 20)[:n]
		out, err := exec.Command(debugfs, "-R", "dx_hash -h half_md4 -s "+id+" "+name).CombinedOutput()
		if err != nil {
			t.Fatalf("debugfs: %v\n%s", err, out)
		}
		hash, minor := ext4.HashHalfMD4(name, seed)
		if want := fmt.Sprintf("0x%x (minor 0x%x)", hash, minor); !strings.Contains(string(out), want) {
			t.Errorf("%d bytes: got %s, debugfs says %s", n, want, out)
		}
	}
}

func TestHasSuper(t *testing.T) {
	var got []uint32
	for g := range uint32(130) {
		if ext4.HasSuper(g) {
			got = append(got, g)
		}
	}
	if want := "[0 1 3 5 7 9 25 27 49 81 125]"; fmt.Sprint(got) != want {
		t.Errorf("groups with a superblock: %v, want %s", got, want)
	}
}

// The check value of CRC-32C, which the usual interface inverts.
func TestChecksum(t *testing.T) {
	if got := ^ext4.Checksum(^uint32(0), []byte("123456789")); got != 0xE3069283 {
		t.Errorf("crc32c is %#x", got)
	}
}
