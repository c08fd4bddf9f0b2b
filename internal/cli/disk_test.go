package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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

// interruptedAt is interrupted when it is asked for the nth time.
type interruptedAt struct {
	context.Context
	n atomic.Int32
}

func (c *interruptedAt) Err() error {
	if c.n.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

func TestInterruptedCopyLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	image, dest := filepath.Join(dir, "image"), filepath.Join(dir, "dest")
	seed := filepath.Join(dir, "seed", "sub")
	if err := os.MkdirAll(seed, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(seed, name), bytes.Repeat([]byte(name), 100_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if status, _, stderr := run(t, "disk", "create", image, "--size", "16M", "--from-dir", filepath.Dir(seed)); status != 0 {
		t.Fatal(stderr)
	}
	i, err := openImage(image)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for _, path := range []string{"/sub", "/sub/a"} {
		n, err := i.Lookup(path, true)
		if err != nil {
			t.Fatal(err)
		}
		left, checks := 0, int32(0)
		for ; ; checks++ {
			ctx := &interruptedAt{Context: t.Context()}
			ctx.n.Store(checks)
			err := (&diskCopier{a: &app{}, ctx: ctx}).copy(i, n, path, dest)
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("%s, interrupted at %d: %v", path, checks, err)
			}
			if _, err := os.Lstat(dest); !errors.Is(err, os.ErrNotExist) {
				left++
			}
		}
		if left > 0 || checks < 2 {
			t.Errorf("%s: %d of %d interrupted copies left something", path, left, checks)
		}
		if err := os.RemoveAll(dest); err != nil {
			t.Fatal(err)
		}
	}
}
