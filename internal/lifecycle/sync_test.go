package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/api"
)

// Each start brings files up to date before the VM counts as running, those of the configuration and the VM's own; what can't be is told
// and keeps nothing from running, while a creation refuses what breaks a rule.
func TestSync(t *testing.T) {
	w := newWorld(t)
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.home, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(".netrc", "one")
	write("key", "key")
	vm, err := w.Create(t.Context(), api.CreateRequest{Name: "box", Start: true, Sync: []banger.FileSync{{Host: "~/key", Guest: "~/.ssh/id", Mode: "0400"}, {Host: "~/missing"}}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []banger.FileSync{{Host: "~/.netrc", Guest: "/root/.netrc"}, {Host: "~/key", Guest: "/root/.ssh/id", Mode: "0400"}}; !slices.Equal(vm.Synced, want) {
		t.Errorf("the record says %v, want %v", vm.Synced, want)
	}
	got := func() (list []string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, f := range w.runs[vm.ID].files {
			list = append(list, f.Guest+" "+string(f.Content))
		}
		return list
	}
	if want := []string{"/root/.netrc one", "/root/.ssh ", "/root/.ssh/id key"}; !slices.Equal(got(), want) {
		t.Errorf("the guest got %q, want %q", got(), want)
	}
	write(".netrc", "two")
	if err := os.Remove(filepath.Join(w.home, "key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(w.home, "key")); err != nil {
		t.Fatal(err)
	}
	var told []string
	vm, err = w.Restart(t.Context(), "box", 0, func(p banger.Progress) {
		if p.Notice {
			told = append(told, p.Text)
		}
	})
	if err != nil || vm.State != banger.StateRunning || !slices.Equal(got(), []string{"/root/.netrc two"}) || len(vm.Synced) != 1 {
		t.Errorf("after a restart: %v, state %s, the guest got %q, the record says %v", err, vm.State, got(), vm.Synced)
	}
	if text := strings.Join(told, "\n"); !strings.Contains(text, "~/missing is not there") || !strings.Contains(text, "sync ~/key: it is a symbolic link") {
		t.Errorf("told %q", told)
	}
	if _, err := w.Create(t.Context(), api.CreateRequest{Name: "bad", Sync: []banger.FileSync{{Host: "~/key"}}}, nil, nil); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("a link that leads out: %v", err)
	}
	for _, f := range []banger.FileSync{{Host: "/etc/hostname"}, {Host: "~/x", Mode: "9"}} {
		if _, err := w.Create(t.Context(), api.CreateRequest{Name: "bad", Sync: []banger.FileSync{f}}, nil, nil); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("%v: %v", f, err)
		}
	}
	if _, err := w.Create(t.Context(), api.CreateRequest{Name: "bad", Sync: make([]banger.FileSync, banger.MaxFileSync+1)}, nil, nil); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
	if wrong := w.broken(); len(wrong) > 0 || len(w.list()) != 1 {
		t.Errorf("left %v, %d records", wrong, len(w.list()))
	}
}
