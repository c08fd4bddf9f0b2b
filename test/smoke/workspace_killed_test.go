package smoke

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger/internal/testenv"
)

// The client is killed the moment that what it sends is at its place in the VM: what is done there afterwards is kept by vm delete.
func TestPrepareKilled(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewWorld(t)
	ref, err := name.ParseReference("busybox:1")
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tarball.Write(ref, busyboxImage(t), &archive); err != nil {
		t.Fatal(err)
	}
	cmd := w.Command(t.Context(), "image", "import", "-", "--name", "busybox")
	cmd.Stdin = &archive
	wantStatus(t, testenv.Capture(t, cmd), 0)
	repo, files := userRepo(t, w), filepath.Join(w.User.Dir(t), "files")
	userFile(t, w, filepath.Join(files, "plain"), "plain\n")
	work := filepath.Join(w.User.Dir(t), "work")
	userFile(t, w, work, "precious\n")

	w.Must("vm", "run", "--name", "devbox", "--image", "busybox", "--", "/bin/busybox", "true")
	for place, dir := range map[string]string{"/root/repo": repo, "/root/files": files} {
		there := w.Command(t.Context(), "vm", "exec", "devbox", "--", "/bin/busybox", "sh", "-c", "until [ -e "+place+" ]; do :; done")
		client := w.Command(t.Context(), "workspace", "prepare", "--guest-path", place, "devbox", dir)
		if err := there.Start(); err != nil {
			t.Fatal(err)
		}
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		if err := there.Wait(); err != nil {
			t.Fatal(err)
		}
		client.Process.Kill()
		client.Wait()
		w.Must("vm", "cp", work, "devbox:"+place+"/work")
	}
	w.Must("vm", "delete", "--force", "devbox")
	ids := strings.Fields(w.Must("autosave", "list", "--quiet"))
	if len(ids) != 2 {
		t.Fatalf("autosaves %q, want 2", ids)
	}
	for _, id := range ids { // of the repository's, the next command has done it already
		into := filepath.Join(w.User.Dir(t), "into")
		userGit(t, w, filepath.Dir(into), "clone", "-q", repo, into)
		w.Must("autosave", "restore", "--into", into, id)
		found := false
		for _, ref := range strings.Fields(userGit(t, w, into, "for-each-ref", "--format=%(refname)", "refs/banger")) {
			found = found || strings.HasSuffix(ref, "/all") && userGit(t, w, into, "show", ref+":work") == "precious\n"
		}
		if !found {
			t.Errorf("the work is not in %s", id)
		}
	}
}
