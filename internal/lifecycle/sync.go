package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"time"

	"banger"
	"banger/internal/filesync"
)

// syncPatience bounds how long a guest may take to bring files up to date: it must not hold up a start.
const syncPatience = 30 * time.Second

func (m *Manager) checkSync(list []banger.FileSync) error {
	if len(list) > banger.MaxFileSync {
		return banger.Invalidf("%d files to sync: want at most %d", len(list), banger.MaxFileSync)
	}
	for _, f := range list {
		if _, _, err := f.Paths(m.UserHome); err != nil {
			return err
		}
	}
	return nil
}

// collect reads what a VM is to have of its user's files: first what the configuration gives all, then its own.
func (m *Manager) collect(vm banger.VM, image banger.Image) filesync.Collected {
	entries := slices.Concat(m.Defaults.Sync, vm.Spec.Sync)
	if len(entries) == 0 {
		return filesync.Collected{}
	}
	return filesync.Collect(m.UserHome, entries, banger.IsRoot(userOf(image, vm.Spec.User)))
}

// sync has a guest that is ready bring its user's files up to date, and gives what was sent. What goes wrong is told; it keeps no VM from
// running, because then nobody could put it right.
func (m *Manager) sync(ctx context.Context, vm banger.VM, progress banger.ProgressFunc) []banger.FileSync {
	if len(m.Defaults.Sync) == 0 && len(vm.Spec.Sync) == 0 {
		return nil
	}
	defer progress.Begin("sync", "bringing your files up to date")()
	image, err := m.Images.Get(vm.ImageKey)
	if err != nil {
		m.tellSync(ctx, vm, progress, fmt.Sprintf("your files: %v", err))
		return vm.Synced
	}
	files := m.collect(vm, image)
	m.tellLeft(ctx, vm, files, progress)
	ctx, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	synced, err := m.Machines.Sync(ctx, vm.ID, files.Files)
	if err != nil {
		m.tellSync(ctx, vm, progress, fmt.Sprintf("your files are not brought up to date: %v", err))
		return vm.Synced
	}
	for _, f := range synced.Kept {
		m.tellSync(ctx, vm, progress, fmt.Sprintf("%.300q has changed in the VM, too: that version is beside it, %.300q", f.Path, f.Note))
	}
	for _, f := range synced.Left {
		m.tellSync(ctx, vm, progress, fmt.Sprintf("%.300q in the VM stays as it is: %.300q", f.Path, f.Note))
	}
	return files.Entries
}

// tellLeft tells what does not get into a VM.
func (m *Manager) tellLeft(ctx context.Context, vm banger.VM, files filesync.Collected, progress banger.ProgressFunc) {
	for _, warning := range files.Warnings {
		m.tellSync(ctx, vm, progress, warning)
	}
	for _, err := range files.Failed {
		m.tellSync(ctx, vm, progress, err.Error())
	}
}

func (m *Manager) tellSync(ctx context.Context, vm banger.VM, progress banger.ProgressFunc, text string) {
	m.Log.WarnContext(ctx, "sync", "vm", vm.ID, "name", vm.Spec.Name, "warning", text)
	progress.Notice("sync", text)
}
