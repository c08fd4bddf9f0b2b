package statedir

import (
	"errors"
	"strings"
	"testing"

	"banger"
)

func TestFileSystems(t *testing.T) {
	for magic, want := range map[uint32]string{
		magicNFS: "is on NFS", magicCIFS: "is on CIFS", magic9P: "is on 9P", magicOverlay: "", magicTmpfs: "", 0xef53: "", 0x9123683e: "", // ext4, btrfs
	} {
		err := judge("/state", magic)
		if (want != "") != errors.Is(err, banger.ErrRefused) || err != nil && (!strings.Contains(err.Error(), want) || banger.HintOf(err) == "") {
			t.Errorf("judge(%#x) = %v (hint %q), want %q", magic, err, banger.HintOf(err), want)
		}
	}
	if _, err := fileSystem("/no/such/path"); err == nil {
		t.Error("a path that is not there has a file system")
	}
	if err := (Dir{Root: "/proc"}).Warning(); err != nil {
		t.Errorf("Warning of a file system that nothing is said about = %v", err)
	}
}
