package mcp

import (
	"context"
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"

	"banger"
)

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := osexec.Command("git", append([]string{"-C", dir, "-c", "user.name=A", "-c", "user.email=a@example.com"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
}

// A repository is used when it, and what git has of it, lies in an allowed directory, whatever links lead there.
func TestRepository(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(root, name) }
	for _, dir := range []string{"in/repo/sub", "in/plain", "outer/in2", "secret", "in-not"} {
		if err := os.MkdirAll(at(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"in/repo", "outer", "secret"} {
		git(t, at(dir), "init", "-q")
		git(t, at(dir), "commit", "-q", "--allow-empty", "-m", "x")
	}
	git(t, at("secret"), "worktree", "add", "-q", at("in/tree"))
	for link, to := range map[string]string{"in/link": "secret", "alias": "in/repo"} {
		if err := os.Symlink(at(to), at(link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(at("in"))
	s := &Server{cfg: Config{Paths: []string{at("in"), at("outer/in2")}}}
	for _, test := range []struct{ path, want string }{
		{"in/repo", "in/repo"},
		{"in/repo/sub", "in/repo"},
		{"in/plain", "in/plain"},
		{"alias", "in/repo"},
		{"in/link", ""},
		{"in/tree", ""}, // its .git directory is elsewhere
		{"outer/in2", ""},
		{"secret", ""},
		{"in-not", ""},
		{"in/../secret", ""},
		{"nosuch", ""},
	} {
		got, err := s.repository(context.Background(), root+"/"+test.path)
		want := test.want
		if want != "" {
			want = at(want)
		}
		if got != want || want == "" && !errors.Is(err, banger.ErrRefused) || want != "" && err != nil {
			t.Errorf("repository(%s) = %q, %v, want %q", test.path, got, err, test.want)
		}
	}
	if got, err := s.repository(context.Background(), "repo"); got != at("in/repo") || err != nil {
		t.Errorf("a relative path: %q, %v", got, err)
	}
	if _, err := s.repository(context.Background(), at("in/nosuch")); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := (&Server{}).repository(context.Background(), "/"); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("nothing is allowed: %v", err)
	}
}

// Work comes back into allowed places only, wherever the VM got its repository from.
func TestPullPlaces(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	git(t, root, "init", "-q")
	h := newHost()
	vm := h.addVM("one", map[string]string{Label: Made})
	vm.Workspaces = []banger.Workspace{{GuestPath: "/root/repo", HostPath: root}}
	inside, outside := connect(t, h, Config{Paths: []string{root}}), connect(t, h, Config{Paths: []string{t.TempDir()}})
	for _, tool := range []string{"workspace_status", "workspace_diff", "workspace_pull", "workspace_push"} {
		inside.must(tool, m{"vm": "one"}, nil)
		h.used = nil
		outside.refuses(tool, m{"vm": "one"}, "refused", "--allow-path "+root)
		if len(h.used) > 0 {
			t.Errorf("%s did %v", tool, h.used)
		}
	}
}
