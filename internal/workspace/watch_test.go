package workspace

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestExcluded(t *testing.T) {
	dir := t.TempDir()
	gitIn(t, dir, "init", "-q", "-b", "main")
	for name, text := range map[string]string{
		".gitignore": "*.o\nbuild/\n/top\n!keep.o\nsecret*\n", "src/.gitignore": "gen\n", "src/main.c": "", "build/tracked": "", "vendor/x.o": "", "plain/a": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("src", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	canary := filepath.Join(t.TempDir(), "ran")
	gitIn(t, dir, "add", ".")
	gitIn(t, dir, "add", "-f", "build/tracked")
	gitIn(t, dir, "commit", "-q", "-m", "first")
	gitIn(t, dir, "config", "core.fsmonitor", "touch "+canary)
	repo, err := Inspect(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	asked := []string{"a.o", "keep.o", "src/x/b.o", "build/", "build/tracked", "build/new", "build/sub/", "src/gen/", "src/gen/deep/file", "gen", "top/", "sub/top", "plain/", "new/dir/",
		".git/config", "sub/.git/hooks/post-checkout", "sub/.GIT/", "git~1", "link", "link/main.c", "secret\n.txt", "-o.o", ":(top)x.o", ":/top", ":(exclude)a", "*", "src/main.c", "\xff\xfe.o", "\xff\xfe"}
	want := []string{"a.o", "src/x/b.o", "build/new", "build/sub/", "src/gen/", "src/gen/deep/file", "top/", ".git/config", "sub/.git/hooks/post-checkout", "sub/.GIT/", "git~1", "link/main.c",
		"secret\n.txt", "-o.o", ":(top)x.o", "\xff\xfe.o"}
	got, err := repo.Excluded(t.Context(), asked)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Errorf("Excluded = %q\nwant %q", names, want)
	}
	if _, err := os.Stat(canary); err == nil {
		t.Error("the repository's fsmonitor ran")
	}
	if err := os.Rename(filepath.Join(dir, ".git"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if got, err := repo.Excluded(t.Context(), []string{"a.o"}); err == nil {
		t.Errorf("Excluded without a repository = %v, want an error", got)
	}
}
