package workspace

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"banger"
)

func sampleIndex() []indexEntry {
	id := strings.Repeat("0123456789", 4)
	return []indexEntry{
		{Path: "a", Mode: 0o100644, ID: id, Stat: stat{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{Path: "a/b", Mode: 0o100755, ID: id},
		{Path: "conflict", Mode: 0o100644, ID: id, Stage: 1},
		{Path: "conflict", Mode: 0o100644, ID: id, Stage: 2},
		{Path: "link", Mode: 0o120000, ID: id, AssumeValid: true},
		{Path: strings.Repeat("long/", 1000) + "x", Mode: 0o100644, ID: id, Skip: true},
		{Path: "new", Mode: 0o100644, ID: id, IntentToAdd: true},
	}
}

func TestIndexRoundTrip(t *testing.T) {
	for _, entries := range [][]indexEntry{nil, sampleIndex()[:5], sampleIndex()} {
		b, err := encodeIndex(entries)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseIndex(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries)+len(got) > 0 && !reflect.DeepEqual(got, entries) {
			t.Errorf("parseIndex(encodeIndex(%d entries)) = %v, want %v", len(entries), got, entries)
		}
	}
}

func TestParseBadIndex(t *testing.T) {
	good, err := encodeIndex(sampleIndex())
	if err != nil {
		t.Fatal(err)
	}
	unsorted := sampleIndex()[:2]
	b, _ := encodeIndex(unsorted)
	swapped := append([]byte{}, b...)
	swapped[indexHeader+62] = 'z'
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, banger.ErrCorrupt},
		{"one byte short", good[:len(good)-1], banger.ErrCorrupt},
		{"wrong magic", append([]byte("DIRX"), good[4:]...), banger.ErrCorrupt},
		{"unsorted", withZeroSum(swapped), banger.ErrCorrupt},
		{"too many entries", withZeroSum(append([]byte("DIRC\x00\x00\x00\x02\xff\xff\xff\xff"), good[12:]...)), banger.ErrCorrupt},
		{"version 5", withZeroSum(append([]byte("DIRC\x00\x00\x00\x05"), good[8:]...)), banger.ErrUnsupported},
		{"split", withZeroSum(append(b[:len(b)-20:len(b)-20], "link\x00\x00\x00\x00aaaaaaaaaaaaaaaaaaaa"...)), banger.ErrUnsupported},
		{"long extension", withZeroSum(append(b[:len(b)-20:len(b)-20], "TREE\x00\x00\xff\x00aaaaaaaaaaaaaaaaaaaa"...)), banger.ErrCorrupt},
	} {
		if _, err := parseIndex(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: parseIndex = %v, want %v", c.name, err, c.want)
		}
	}
}

func withZeroSum(b []byte) []byte { return append(b[:len(b)-20:len(b)-20], make([]byte, 20)...) }

// TestIndexIsGits compares with git: it reads what we write, in each version that it can make of it, and we read that.
func TestIndexIsGits(t *testing.T) {
	dir := newRepo(t)
	for _, name := range []string{"a", "dir/one", "dir/two words", "dir/sub/ü"} {
		writeFile(t, filepath.Join(dir, name), name)
	}
	gitIn(t, dir, "add", ".")
	want := gitIn(t, dir, "ls-files", "--stage", "-z")
	for _, version := range []string{"2", "3", "4"} {
		gitIn(t, dir, "update-index", "--index-version", version)
		if version == "3" {
			gitIn(t, dir, "update-index", "--skip-worktree", "dir/one")
		}
		b, err := os.ReadFile(filepath.Join(dir, ".git/index"))
		if err != nil {
			t.Fatal(err)
		}
		entries, err := parseIndex(b)
		if err != nil {
			t.Fatalf("version %s: %v", version, err)
		}
		ours, err := encodeIndex(entries)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ".git/index"), ours, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := gitIn(t, dir, "ls-files", "--stage", "-z"); got != want {
			t.Errorf("version %s: git reads %q, want %q", version, got, want)
		}
		if got := gitIn(t, dir, "status", "--porcelain"); strings.Contains(got, " M") || strings.Contains(got, "MM") {
			t.Errorf("version %s: git status = %q", version, got)
		}
	}
}

func FuzzParseIndex(f *testing.F) {
	good, _ := encodeIndex(sampleIndex())
	f.Add(good)
	f.Add(withZeroSum(good))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := parseIndex(b)
		if err != nil {
			return
		}
		for _, e := range entries {
			if strings.ContainsRune(e.Path, 0) {
				t.Fatalf("path %q", e.Path)
			}
		}
		again, err := encodeIndex(entries)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseIndex(again); err != nil || !reflect.DeepEqual(got, entries) && len(entries) > 0 {
			t.Fatalf("parseIndex(encodeIndex(%v)) = %v, %v", entries, got, err)
		}
	})
}

// newRepo makes a repository with an identity.
func newRepo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	gitIn(t, dir, "init", "-q", "-b", "main")
	return dir
}

// gitIn runs git and gives what it prints. The identity is the test's: none of the machine's configuration counts.
func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=A U Thor", "GIT_AUTHOR_EMAIL=author@example.com",
		"GIT_COMMITTER_NAME=C O Mitter", "GIT_COMMITTER_EMAIL=committer@example.com")
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			stderr = exit.Stderr
		}
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return string(out)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
