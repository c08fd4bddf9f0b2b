package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.tar")
	put := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			_, writeErr := io.WriteString(w, text)
			return errors.Join(writeErr, err)
		}
	}
	wantFiles := func(what string, want ...string) {
		t.Helper()
		var got []string
		entries, err := os.ReadDir(dir)
		for _, entry := range entries {
			content, readErr := os.ReadFile(filepath.Join(dir, entry.Name()))
			err = errors.Join(err, readErr)
			got = append(got, entry.Name()+"="+string(content))
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %s %v", what, diff, err)
		}
	}
	full := syscall.ENOSPC
	if err := writeWhole(path, false, put("half", full)); !errors.Is(err, full) {
		t.Errorf("on a full disk: %v", err)
	}
	wantFiles("full disk")
	if err := writeWhole(path, false, put("one", nil)); err != nil {
		t.Error(err)
	}
	if err := writeWhole(path, false, put("two", nil)); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file that came meanwhile: %v", err)
	}
	wantFiles("no overwrite", "out.tar=one")
	if err := writeWhole(path, true, put("half", full)); !errors.Is(err, full) {
		t.Errorf("over a file, on a full disk: %v", err)
	}
	wantFiles("failed overwrite", "out.tar=one")
	if err := writeWhole(path, true, put("two", nil)); err != nil {
		t.Error(err)
	}
	wantFiles("overwrite", "out.tar=two")
}

func TestPackerOf(t *testing.T) {
	for name, ok := range map[string]bool{"a.tar": true, "a": true, "a.TAR.GZ": true, "a.tgz": true, "a.tar.zst": true, "a.tzst": true, "a.gz": true,
		"a.tar.xz": false, "a.txz": false, "a.tar.bz2": false, "a.zip": false} {
		if _, err := packerOf(name); (err == nil) != ok {
			t.Errorf("packerOf(%s) = %v", name, err)
		}
	}
}
