package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, c := range []struct {
		data string
		perm fs.FileMode
	}{{"first", 0o644}, {"second, longer", 0o600}, {"", 0o444}, {"over a read-only file", 0o640}} {
		if err := Write(path, []byte(c.data), c.perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != c.data {
			t.Errorf("content = %q, %v, want %q", got, err, c.data)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != c.perm {
			t.Errorf("mode = %v, %v, want %v", info.Mode(), err, c.perm)
		}
	}
	onlyFile(t, dir, "f")
}

func TestWriteFailureLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "occupied")
	if err := os.MkdirAll(filepath.Join(target, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(target, []byte("x"), 0o644); err == nil {
		t.Error("Write over a directory succeeded")
	}
	if _, err := os.Stat(filepath.Join(target, "child")); err != nil {
		t.Error(err)
	}
	onlyFile(t, dir, "occupied")
	if err := Write(filepath.Join(dir, "missing", "f"), nil, 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write into a missing directory = %v, want ErrNotExist", err)
	}
}

func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("directory holds %v, %v, want only %s", entries, err, name)
	}
}
