package smoke

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"banger/api"
	"banger/internal/testenv"
)

func listOps(w *testenv.World, args ...string) (list []api.Operation) {
	w.JSON(&list, append([]string{"ops", "list"}, args...)...)
	return list
}

// A VM that was asked for with -d is there, whatever becomes of the client; the daemon does not end under it.
func TestDetachedRun(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "list") // a daemon is there
	client := w.Command(t.Context(), "vm", "run", "-d", "--name", "box")
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	var op api.Operation
	testenv.WaitFor(t, time.Minute, "the operation", func() bool {
		for _, op = range listOps(w) {
			return true
		}
		return false
	})
	client.Process.Kill()
	client.Wait()
	if op.Kind != "create vm" || op.Subject != "box" || !op.Detached || op.State != api.OperationRunning {
		t.Errorf("the operation: %+v", op)
	}
	wantStatus(t, w.Run("daemon", "stop"), 4, op.ID, "create vm box", "--force")
	if r := w.Run("ops", "wait", op.ID[:7]); r.Status != 0 || r.Stdout != "box\n" || !strings.Contains(r.Stderr, "boot: ") {
		t.Errorf("ops wait: status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
	}
	if out := w.Must("vm", "exec", "box", "--", "echo", "alive"); out != "alive\n" {
		t.Errorf("the VM answers %q", out)
	}
	for _, path := range []string{w.State + "/bangerd.log", w.State + "/vms/" + string(showVM(w, "box").ID) + "/machine.log"} {
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), `"op":"`+op.ID+`"`) {
			t.Errorf("%s does not tell of %s: %v", path, op.ID, err)
		}
	}
	w.Must("vm", "delete", "--force", "box")
	wantNothingLeft(t, w)
}

// One that is cancelled while its guest boots leaves nothing when the command returns, and so does one that the daemon's end cuts off.
func TestCancelledRun(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what string
		end  func(w *testenv.World, op string)
	}{
		{"cancel", func(w *testenv.World, op string) {
			if out := w.Must("ops", "cancel", op); out != op+"\n" {
				t.Errorf("ops cancel printed %q", out)
			}
		}},
		{"daemon stop", func(w *testenv.World, _ string) { w.Must("daemon", "stop", "--force") }},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			w := testenv.NewWorld(t)
			op := strings.TrimSpace(w.Must("vm", "run", "-d", "--name", "box", "--image", "debian-bookworm-slim"))
			testenv.WaitFor(t, time.Minute, "the boot", func() bool {
				var shown api.Operation
				w.JSON(&shown, "ops", "show", op)
				return len(shown.Stages) > 0 && shown.Stages[len(shown.Stages)-1].Stage == "boot"
			})
			tc.end(w, op)
			if tc.what == "daemon stop" && len(listVMs(w)) > 0 { // it ended within the time that operations get: whole
				if out := w.Must("vm", "exec", "box", "--", "echo", "whole"); out != "whole\n" {
					t.Errorf("the VM says %q", out)
				}
				w.Must("vm", "delete", "--force", "box")
			}
			if dirs := vmDirs(t, w); len(dirs) != 0 {
				t.Errorf("left directories %v", dirs)
			}
			for pid, cmdline := range w.Processes() {
				if strings.Contains(cmdline, "qemu-system") || strings.Contains(cmdline, "banger-machine") {
					t.Errorf("left running: %d %s", pid, cmdline)
				}
			}
			wantNothingLeft(t, w)
		})
	}
}

// slowRegistry has one image, whose layer comes once the gate is open.
type slowRegistry struct {
	ref   string
	asked chan struct{} // takes one value for each request that waits
	gate  chan struct{}
}

func newSlowRegistry(t *testing.T) *slowRegistry {
	t.Helper()
	s := &slowRegistry{asked: make(chan struct{}, 100), gate: make(chan struct{})}
	var mu sync.Mutex
	slow := ""
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		wait := slow != "" && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, slow)
		mu.Unlock()
		if wait {
			s.asked <- struct{}{}
			select {
			case <-s.gate:
			case <-r.Context().Done():
				return
			}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.ref = strings.TrimPrefix(server.URL, "http://") + "/team/hello:1"
	parsed, err := name.ParseReference(s.ref)
	if err != nil {
		t.Fatal(err)
	}
	img := scratchImage(t)
	if err := remote.Write(parsed, img); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	slow = digest.String()
	mu.Unlock()
	return s
}

// A pull ends with its client, unless that detached it, or others wait for it too.
func TestPullAndItsClients(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	s := newSlowRegistry(t)
	before := entries(t, w.State+"/images")
	first := w.Command(t.Context(), "image", "pull", s.ref)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	<-s.asked
	first.Process.Kill()
	first.Wait()
	testenv.WaitFor(t, time.Minute, "the pull to be undone", func() bool { return len(listOps(w)) == 0 })
	if list := listOps(w, "--all"); len(list) != 1 || list[0].State != api.OperationCancelled || list[0].Error == nil || !strings.Contains(list[0].Error.Message, "client left") {
		t.Errorf("operations: %+v, want one that was cancelled", list)
	}
	if after := entries(t, w.State+"/images"); after != before {
		t.Errorf("images: %s, before %s", after, before)
	}

	op := strings.TrimSpace(w.Must("image", "pull", "-d", s.ref))
	other := strings.TrimSpace(w.Must("image", "pull", "-d", s.ref))
	<-s.asked
	w.Must("ops", "cancel", op)
	waiting := make(chan testenv.Result)
	go func() { waiting <- w.Run("ops", "wait", other) }()
	close(s.gate)
	if r := <-waiting; r.Status != 0 || r.Stdout != "hello-1\n" {
		t.Errorf("the pull that nobody cancelled: status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
	}
	wantStatus(t, w.Run("ops", "wait", op), 130, "it was cancelled", op)
	w.Must("image", "show", "hello-1")
}

func entries(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
