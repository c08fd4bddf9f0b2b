package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
)

func TestSaves(t *testing.T) {
	host, guest, origin := workedOn(t)
	work(t, guest)
	dep := filepath.Join(guest, "dep")
	writeFile(t, filepath.Join(dep, "x"), "x")
	gitIn(t, dep, "init", "-q")
	commit(t, dep, "nested work")
	record := Record{Workspace: banger.Workspace{GuestPath: guest, HostPath: host, Head: origin.Base, Packs: origin.Packs}, Sent: origin.Sent}
	vm := banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}
	saves := Saves{Dir: filepath.Join(t.TempDir(), "autosave")}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	kept, err := saves.Keep(t.Context(), local(nil), vm, record, at)
	if err != nil || len(kept) != 2 {
		t.Fatalf("Keep() = %+v, %v, want the repository and the one in it", kept, err)
	}
	list, err := saves.List()
	if err != nil || len(list) != 2 || !list[0].Pending {
		t.Fatalf("List() = %+v, %v", list, err)
	}
	if err := Restore(t.Context(), list[0], host); err != nil {
		t.Fatal(err)
	}
	checkSaved(t, host, Namespace(vm, at), guest)
	if err := Restore(t.Context(), list[0], host); err != nil {
		t.Errorf("restored again: %v", err)
	}
	other := newRepo(t)
	commit(t, other, "nothing to do with it")
	if err := Restore(t.Context(), list[0], other); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Restore into another repository = %v", err)
	}
	if err := Restore(t.Context(), list[1], other); err != nil { // it has no parents there
		t.Error(err)
	}
	if save, err := saves.Landed(list[0].ID[:20]); err == nil || save.ID != "" {
		t.Errorf("Landed(ambiguous) = %v, %v", save, err)
	}
	if save, err := saves.Landed(list[0].ID); err != nil || save.Pending {
		t.Errorf("Landed() = %+v, %v", save, err)
	}
	if kept, err = saves.Keep(t.Context(), local(nil), vm, record, at.Add(time.Hour)); err != nil || len(kept) != 2 {
		t.Fatalf("Keep() = %+v, %v", kept, err)
	}
	for _, c := range []struct {
		after  time.Duration
		all    bool
		dryRun bool
		want   int
	}{
		{29 * 24 * time.Hour, true, false, 0},
		{40 * 24 * time.Hour, false, true, 1}, // one of the older two is in no repository yet, the newer two are the last
		{40 * 24 * time.Hour, true, true, 2},
		{40 * 24 * time.Hour, true, false, 2},
		{400 * 24 * time.Hour, true, false, 0},
	} {
		if removed, err := saves.Prune(at.Add(c.after), SavesKept, c.all, c.dryRun); err != nil || len(removed) != c.want {
			t.Errorf("Prune(%+v) = %d, %v, want %d", c, len(removed), err, c.want)
		}
	}
	if list, _ := saves.List(); len(list) != 2 {
		t.Errorf("%d are left, want the last two", len(list))
	}
}

// TestSavesThatAreCutOff has every kind of leftover.
func TestSavesThatAreCutOff(t *testing.T) {
	saves := Saves{Dir: t.TempDir()}
	for _, name := range []string{"a.bundle", "b.bundle.tmp", "copy-1/objects/x", ".c.json123", "kept.bundle"} {
		writeFile(t, filepath.Join(saves.Dir, name), "x")
	}
	writeFile(t, filepath.Join(saves.Dir, "kept.json"), `{"id":"kept"}`)
	writeFile(t, filepath.Join(saves.Dir, "bad.json"), `{`)
	if err := saves.CleanUp(); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(saves.Dir)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if got := strings.Join(names, " "); got != "bad.json kept.bundle kept.json" {
		t.Errorf("left: %s", got)
	}
	if list, err := saves.List(); err != nil || len(list) != 1 {
		t.Errorf("List() = %v, %v", list, err)
	}
}

func TestTooMuchToSave(t *testing.T) {
	_, guest, origin := workedOn(t)
	writeFile(t, filepath.Join(guest, "big"), strings.Repeat("x", 100))
	origin.MaxUntracked = 99
	_, err := Fetch(t.Context(), local(nil), guest, t.TempDir(), origin)
	if !errors.Is(err, banger.ErrRefused) {
		t.Errorf("Fetch() = %v", err)
	}
}

// Files whose repository is gone are nothing that may go unseen; a directory that is gone is.
func TestKeepWithoutRepository(t *testing.T) {
	host, guest, origin := workedOn(t)
	record := Record{Workspace: banger.Workspace{GuestPath: guest, HostPath: host, Head: origin.Base, Packs: origin.Packs}, Sent: origin.Sent}
	saves := Saves{Dir: t.TempDir()}
	vm := banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}
	if err := os.RemoveAll(filepath.Join(guest, ".git")); err != nil {
		t.Fatal(err)
	}
	if _, err := saves.Keep(t.Context(), local(nil), vm, record, time.Now()); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Keep() of files without .git = %v, want ErrConflict", err)
	}
	if err := os.RemoveAll(guest); err != nil {
		t.Fatal(err)
	}
	if kept, err := saves.Keep(t.Context(), local(nil), vm, record, time.Now()); err != nil || len(kept) > 0 {
		t.Errorf("Keep() of nothing = %v, %v", kept, err)
	}
}
