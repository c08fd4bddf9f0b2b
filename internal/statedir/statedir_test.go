package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// A directory whose sockets would have names that are too long is refused before anything is made; the longest that fits is not.
func TestLongPath(t *testing.T) {
	base, err := os.MkdirTemp("/tmp", "bs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	tail := len(Dir{Root: ""}.VM("000000000000").ChannelSocket()) + 1 // of the longest socket, with its separator
	long := func(n int) Dir { return Dir{Root: filepath.Join(base, strings.Repeat("x", n-len(base)-1))} }

	fits := long(maxSocketPath - tail)
	if err := fits.Ensure(); err != nil {
		t.Errorf("a path of %d bytes: %v", len(fits.Root), err)
	}
	tooLong := Dir{Root: fits.Root + "yy"}
	if err := tooLong.Ensure(); !errors.Is(err, banger.ErrInvalid) || banger.HintOf(err) == "" {
		t.Errorf("a path of %d bytes: %v, want an invalid one with a hint", len(tooLong.Root), err)
	}
	if _, err := os.Stat(tooLong.Root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the refused directory: %v, want none", err)
	}
}
