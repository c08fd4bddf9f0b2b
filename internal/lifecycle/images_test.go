package lifecycle

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/api"
)

func (i images) Base(_ context.Context, image banger.Image, _ banger.ProgressFunc) (string, error) {
	if changed := i.w.changed; changed != nil {
		return "", changed
	}
	return i.w.dir.Image(image.Key).Rootfs(), i.step("image: base")
}

func (i images) Prune(_ context.Context, inUse map[string]bool, all, dryRun bool) (api.Pruned, error) {
	if inUse["key"] || !all {
		return api.Pruned{}, i.step("image: prune")
	}
	return api.Pruned{Items: []api.PrunedItem{{Key: "key"}}}, i.step("image: prune")
}

// A VM whose base has changed is neither made nor started.
func TestChangedBase(t *testing.T) {
	w := newWorld(t)
	w.mustCreate("user", false)
	w.changed = &banger.Error{Kind: banger.ErrConflict, Op: "image", Subject: "debian", Err: errors.New("/mine.ext4 has changed"), Hint: "put it back"}
	if _, err := w.create("other", true); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Create on a changed base: %v", err)
	}
	if _, err := w.create("other", false); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Create on a changed base, not started: %v", err)
	}
	vm, err := w.Start(t.Context(), "user", nil)
	if !errors.Is(err, banger.ErrConflict) || banger.HintOf(err) != "put it back" {
		t.Errorf("Start on a changed base: %v", err)
	}
	if vm = w.get("user"); vm.State != banger.StateStopped || len(w.list()) != 1 {
		t.Errorf("afterwards: %+v of %+v", vm, w.list())
	}
	w.changed = nil
	if _, err := w.Start(t.Context(), "user", nil); err != nil {
		t.Errorf("Start when it is back: %v", err)
	}
	w.changed = &banger.Error{Kind: banger.ErrConflict, Err: errors.New("/mine.ext4 has changed")}
	w.guestEnds(vm.ID, banger.ExitReboot)
	w.await("the reboot to be refused", func() bool { return w.get("user").State == banger.StateError })
	if vm = w.get("user"); !strings.Contains(vm.LastError, "/mine.ext4 has changed") {
		t.Errorf("after a reboot on a changed base: %+v", vm)
	}
}

func TestPruneAndShowImages(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("user", false)
	if pruned, err := w.PruneImages(t.Context(), true, false); err != nil || len(pruned.Items) != 0 {
		t.Errorf("PruneImages with a user = %+v, %v", pruned, err)
	}
	detail, err := w.ShowImage(t.Context(), "debian")
	if err != nil || !cmp.Equal(detail.VMs, []string{"user"}) || detail.Dir != w.dir.Image("key").Path {
		t.Errorf("ShowImage = %+v, %v", detail, err)
	}
	if _, err := w.ShowImage(t.Context(), "none"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("ShowImage of none: %v", err)
	}
	if _, err := w.Delete(t.Context(), string(vm.ID), false, nil); err != nil {
		t.Fatal(err)
	}
	if pruned, err := w.PruneImages(t.Context(), true, false); err != nil || len(pruned.Items) != 1 {
		t.Errorf("PruneImages = %+v, %v", pruned, err)
	}
	if err := w.daemon.db.Reserve(t.Context(), banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "unreadable"}, State: banger.StateError}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.PruneImages(t.Context(), true, false); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "unreadable") {
		t.Errorf("PruneImages with a VM whose image is not known: %v", err)
	}
	w.basesInUse.RLock()
	defer w.basesInUse.RUnlock()
	if _, err := w.PruneImages(t.Context(), true, false); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("PruneImages while a VM is made: %v", err)
	}
}
