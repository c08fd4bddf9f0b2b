package fence

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

const undo = "banger undo"

func block(body string) string { return begin + undo + "\n" + body + end + "\n" }

func TestPut(t *testing.T) {
	for _, tc := range []struct {
		name, text, want string
		bad              bool
	}{
		{"empty", "", block("x\n"), false},
		{"before what is there", "Host a\n  User b\n", block("x\n") + "Host a\n  User b\n", false},
		{"no newline at the end", "Host a", block("x\n") + "Host a", false},
		{"CRLF", "Host a\r\n", block("x\n") + "Host a\r\n", false},
		{"the same is there", "A\n" + block("x\n") + "B\n", "A\n" + block("x\n") + "B\n", false},
		{"an older one is there", "A\n" + block("old\n") + "B\n", "A\n" + block("x\n") + "B\n", false},
		{"two are there", block("1\n") + "A\n" + block("2\n") + "B", block("x\n") + "A\nB", false},
		{"begins without end", "A\n" + begin + "\nB\n", "", true},
		{"ends without begin", "A\n" + end + "\nB\n", "", true},
		{"begins twice", begin + "\n" + block("x\n"), "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Put(tc.text, undo, "x\n")
			if got != tc.want || (err != nil) != tc.bad {
				t.Errorf("Put(%q) = %q, %v, want %q", tc.text, got, err, tc.want)
			}
		})
	}
}

func TestEdit(t *testing.T) {
	dir := t.TempDir()
	put := func(text string) (string, error) { return Put(text, undo, "x\n") }
	path := filepath.Join(dir, "config")
	if changed, err := Edit(path, 0o600, put); err != nil || !changed {
		t.Fatalf("Edit of a missing file = %v, %v", changed, err)
	}
	if changed, err := Edit(path, 0o600, put); err != nil || changed {
		t.Errorf("the second Edit = %v, %v, want no change", changed, err)
	}
	if _, err := Edit(path, 0o600, Remove); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that became empty: %v, want none", err)
	}

	text := "Host a\x00\xff\n no newline"
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(string) (string, error){put, Remove} {
		if _, err := Edit(path, 0o600, change); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("mode %v, %v, want 0640", info.Mode(), err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("after Put and Remove: %q, %v, want %q", got, err, text)
	}

	link, inDir := filepath.Join(dir, "link"), filepath.Join(dir, "dir")
	if err := errors.Join(os.Symlink(path, link), os.Mkdir(inDir, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, inDir, filepath.Join(dir, "none", "config")} {
		if _, err := Edit(path, 0o600, put); !errors.Is(err, banger.ErrRefused) {
			t.Errorf("Edit(%s) = %v, want ErrRefused", path, err)
		}
		if err := Check(path); !errors.Is(err, banger.ErrRefused) != strings.Contains(path, "none") {
			t.Errorf("Check(%s) = %v", path, err)
		}
	}
	if err := Check(path); err != nil {
		t.Errorf("Check of a file that can be edited = %v", err)
	}
	if err := errors.Join(os.WriteFile(path, []byte(begin+"\nB\n"), 0o600), Check(path)); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("Check of a damaged file = %v, want ErrRefused", err)
	}
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link leads to %q, %v", target, err)
	}
}

// In and out again gives the same bytes; a second time in changes nothing.
func FuzzPut(f *testing.F) {
	f.Add("Host a\n", "x\n")
	f.Add("A\r\n\x00", "")
	f.Add("A\n"+block("old\n")+"B", "x\n")
	f.Add(begin+"\n", "x\n")
	f.Fuzz(func(t *testing.T, text, body string) {
		if body != "" && !strings.HasSuffix(body, "\n") || strings.Contains(body, "# banger:") {
			return
		}
		without, err := Remove(text)
		with, putErr := Put(text, undo, body)
		if (err == nil) != (putErr == nil) {
			t.Fatalf("Remove(%q) = %v, Put = %v", text, err, putErr)
		}
		if err != nil {
			return
		}
		if !Has(text) && without != text {
			t.Errorf("Remove(%q) = %q though there is no block", text, without)
		}
		if again, err := Put(with, undo, body); err != nil || again != with {
			t.Errorf("Put twice(%q) = %q, %v, want %q", text, again, err, with)
		}
		if back, err := Remove(with); err != nil || back != without {
			t.Errorf("Remove(Put(%q)) = %q, %v, want %q", text, back, err, without)
		}
		if !Has(with) || Body(with) != body {
			t.Errorf("Put(%q, %q) gives %q, with the lines %q in its block", text, body, with, Body(with))
		}
	})
}
