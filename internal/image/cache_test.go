package image

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger/api"
	"banger/internal/testenv"
)

func TestPruneCache(t *testing.T) {
	m := plainManager(t)
	held, release := make(chan struct{}, 1), make(chan struct{})
	host := serveRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/slow/blobs/") {
				held <- struct{}{}
				<-release
			}
			next.ServeHTTP(w, r)
		})
	})
	layer := tarOf(t, text("a", strings.Repeat("content", 10_000)))
	push(t, host+"/app:1", imageOf(t, "amd64", layer))
	pull := func(ref string) string {
		t.Helper()
		image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/" + ref}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return image.Key
	}
	if pruned, err := m.PruneCache(false); err != nil || len(pruned.Items) != 0 {
		t.Errorf("of nothing: %+v, %v", pruned, err)
	}
	key := pull("app:1")
	if err := os.WriteFile(filepath.Join(m.Dir.Blobs(), strings.Repeat("0", 64)+".partial"), bytes.Repeat([]byte("x"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dryRun := range []bool{true, false} {
		pruned, err := m.PruneCache(dryRun)
		if err != nil || len(pruned.Items) != 2 || pruned.Items[0].Reason != partial || pruned.Items[1].Reason != cached || pruned.Bytes == 0 {
			t.Errorf("dry run %v: %+v, %v", dryRun, pruned, err)
		}
	}
	if left := names(t, m.Dir.Blobs()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := m.Get(key); err != nil {
		t.Errorf("the image: %v", err)
	}
	if err := m.Delete(key); err != nil {
		t.Fatal(err)
	}
	if again := pull("app:1"); again != key {
		t.Errorf("pulled again: key %s, want %s", again, key)
	}
	if _, err := m.PruneCache(false); err != nil {
		t.Error(err)
	}

	// What is coming stays.
	push(t, host+"/slow:1", imageOf(t, "amd64", tarOf(t, text("b", strings.Repeat("other", 10_000)))))
	var group sync.WaitGroup
	group.Go(func() { pull("slow:1") })
	<-held
	pruned, err := m.PruneCache(false)
	if err != nil || len(pruned.Items) != 0 {
		t.Errorf("while a layer comes: %+v, %v", pruned, err)
	}
	close(release)
	go func() {
		for range held {
		}
	}()
	group.Wait()
	testenv.CheckExt4(t, m.Dir.Image(pull("slow:1")).Rootfs())
	close(held)
}
