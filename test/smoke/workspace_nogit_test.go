package smoke

import (
	"archive/tar"
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger/internal/testenv"
)

// busyboxImage is an image of one program and nothing else.
func busyboxImage(t *testing.T) v1.Image {
	t.Helper()
	dir := tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}
	img, err := mutate.AppendLayers(empty.Image, layerOf(t, dir, tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}))
	if err == nil {
		img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: mustConfig(t, img).RootFS})
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func mustConfig(t *testing.T, img v1.Image) *v1.ConfigFile {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestWorkspaceWithoutGit has a repository go into guests without git, one of them without a shell too: what comes back, running and
// stopped, is the tree that was made there; a second prepare and a push bring what the host has made since.
func TestWorkspaceWithoutGit(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewWorld(t)
	for guest, img := range map[string]v1.Image{"busybox": busyboxImage(t), "scratch": scratchImage(t)} {
		ref, err := name.ParseReference(guest + ":1")
		if err != nil {
			t.Fatal(err)
		}
		var archive bytes.Buffer
		if err := tarball.Write(ref, img, &archive); err != nil {
			t.Fatal(err)
		}
		cmd := w.Command(t.Context(), "image", "import", "-", "--name", guest)
		cmd.Stdin = &archive
		wantStatus(t, testenv.Capture(t, cmd), 0)
		t.Run(guest, func(t *testing.T) { roundTrip(t, w, guest) })
	}
}

// roundTrip works in a guest by copying files into it.
func roundTrip(t *testing.T, w *testenv.World, guest string) {
	dir := userRepo(t, w)
	userGit(t, w, dir, "checkout", "-q", "README")
	twin := filepath.Join(w.User.Dir(t), "twin") // what is done in the guest is done here too
	userGit(t, w, dir, "clone", "-q", dir, twin)
	tree := func(dir, commit string) string { return userGit(t, w, dir, "rev-parse", commit+"^{tree}") }
	same := func(step, branch string) {
		t.Helper()
		w.Must("workspace", "pull", guest, "--branch", branch, "--with-changes")
		userGit(t, w, twin, "add", "-A")
		userGit(t, w, twin, "commit", "-q", "-m", step)
		if got, want := tree(dir, branch), tree(twin, "HEAD"); got != want {
			t.Errorf("%s: the tree is %s, want %s", step, got, want)
		}
	}
	root := "/root/repo"
	if guest == "scratch" { // its image names a user
		root = "/workspaces/" + filepath.Base(dir)
	}
	edit := func(path, content string) {
		t.Helper()
		userFile(t, w, filepath.Join(twin, path), content)
		w.Must("vm", "cp", filepath.Join(twin, path), guest+":"+root+"/"+path)
	}

	argv := map[string][]string{"busybox": {"/bin/busybox", "true"}, "scratch": {"/hello"}}[guest]
	w.Must(append([]string{"vm", "run", "--name", guest, "--image", guest, dir, "--"}, argv...)...)
	if out := w.Must("workspace", "status", guest); !strings.Contains(out, "no file has changed") {
		t.Errorf("status of an untouched guest: %s", out)
	}
	edit("src/main.c", "int main(void) { return 1; }\n")
	edit("src/new.c", "new\n")
	same("edits", "running")

	userFile(t, w, filepath.Join(dir, "README"), "the host goes on\n")
	userGit(t, w, dir, "commit", "-q", "-a", "-m", "second")
	userFile(t, w, filepath.Join(dir, "gone"), "edited, not committed\n")
	wantStatus(t, w.Run("workspace", "prepare", guest, dir), 0, "2 files written", "1 files have changed there")
	for _, name := range []string{"README", "gone"} {
		userGit(t, w, twin, "config", "core.filemode", "true")
		userFile(t, w, filepath.Join(twin, name), map[string]string{"README": "the host goes on\n", "gone": "edited, not committed\n"}[name])
	}
	same("second prepare", "again")

	userGit(t, w, dir, "checkout", "-q", "gone")
	userFile(t, w, filepath.Join(dir, "pushed"), "pushed\n")
	userGit(t, w, dir, "add", "pushed")
	userGit(t, w, dir, "commit", "-q", "-m", "third")
	wantStatus(t, w.Run("workspace", "push", guest), 0, "so is its branch main (1 files written, 0 removed)")
	userFile(t, w, filepath.Join(twin, "pushed"), "pushed\n")
	userFile(t, w, filepath.Join(dir, "src/main.c"), "the host's\n")
	userGit(t, w, dir, "commit", "-q", "-m", "fourth", "src/main.c")
	wantStatus(t, w.Run("workspace", "push", guest), 0, "its branch main stays where it is", "src/main.c")
	wantStatus(t, w.Run("workspace", "prepare", guest, dir), 4, "src/main.c")
	w.Must("vm", "stop", guest)
	same("stopped", "stopped")
	userGit(t, w, dir, "fsck", "--strict")
	w.Must("vm", "delete", guest)
}
