package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/api"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

// reasons lists what is pruned: names, or keys of what has none, and why.
func reasons(pruned api.Pruned) (list []string) {
	for _, item := range pruned.Items {
		list = append(list, item.Name[:min(len(item.Name), 8)]+" "+item.Reason)
	}
	slices.Sort(list)
	return list
}

func TestPrune(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	add := func(name string, marks ...string) (last banger.Image) {
		t.Helper()
		for _, mark := range marks {
			image, err := m.Import(t.Context(), api.ImportRequest{Name: name, Path: save(t, tarOf(t, text("mark", mark)))}, nil)
			if err != nil {
				t.Fatal(err)
			}
			last = image
		}
		return last
	}
	used := add("used", "1")
	add("used", "2")
	add("old", "1", "2", "3")
	add("single", "1")
	mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	damaged := add("damaged", "1")
	if err := os.WriteFile(m.Dir.Image(damaged.Key).Manifest(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty, running, stuck := m.Dir.Image("e0"+damaged.Key[2:]), m.newStaging("pulling"), m.newStaging("stuck")
	for _, dir := range []statedir.ImageDir{empty, running, stuck} {
		if err := os.Mkdir(dir.Path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.left[filepath.Base(stuck.Path)] = true
	inUse := map[string]bool{used.Key: true}
	prune := func(all, dryRun bool) []string {
		t.Helper()
		pruned, err := m.Prune(t.Context(), inUse, all, dryRun)
		if err != nil {
			t.Error(err)
		}
		return reasons(pruned)
	}
	want := []string{empty.Path[len(m.Dir.Images())+1:][:8] + " damaged", damaged.Key[:8] + " damaged", "old superseded", "old superseded", ".stuck-" + filepath.Base(stuck.Path)[7:8] + " leftover"}
	slices.Sort(want)
	before := names(t, m.Dir.Images())
	if diff := cmp.Diff(want, prune(false, true)); diff != "" {
		t.Errorf("dry run: %s", diff)
	}
	if diff := cmp.Diff(before, names(t, m.Dir.Images())); diff != "" {
		t.Errorf("a dry run changed: %s", diff)
	}
	pruned, err := m.Prune(t.Context(), inUse, false, false)
	if diff := cmp.Diff(want, reasons(pruned)); diff != "" || err != nil || pruned.Bytes == 0 {
		t.Errorf("prune: %s, %v, %d bytes", diff, err, pruned.Bytes)
	}
	if again := prune(false, false); len(again) > 0 {
		t.Errorf("pruned again: %v", again)
	}
	if diff := cmp.Diff([]string{"mine unused", "old unused", "single unused", "used unused"}, prune(true, false)); diff != "" {
		t.Errorf("prune all: %s", diff)
	}
	left := []string{filepath.Base(running.Path), used.Key}
	if diff := cmp.Diff(left, names(t, m.Dir.Images())); diff != "" {
		t.Errorf("left: %s", diff)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the registered file: %v", err)
	}
}

// What one removal lacks does not keep the others.
func TestPruneFailsInPart(t *testing.T) {
	if !asOrdinaryUser(t) {
		return
	}
	m, file := plainManager(t), hostRootfs(t)
	first := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	testenv.Run(t, "tune2fs", "-L", "other", file)
	mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	stuck := m.newStaging("stuck")
	if err := errors.Join(os.MkdirAll(filepath.Join(stuck.Path, "dir", "file"), 0o700), os.Chmod(filepath.Join(stuck.Path, "dir"), 0o500)); err != nil {
		t.Fatal(err)
	}
	if err := m.CleanUp(t.Context()); err == nil {
		t.Error("CleanUp of a directory that can't be changed gave no error")
	}
	pruned, err := m.Prune(t.Context(), nil, false, false)
	if diff := cmp.Diff([]string{"mine superseded"}, reasons(pruned)); diff != "" || err != nil || len(pruned.Failed) != 1 || !strings.Contains(pruned.Failed[0].Message, "stuck") {
		t.Errorf("prune: %s, %v, failed %v", diff, err, pruned.Failed)
	}
	if _, err := m.Get(first.Key); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("the superseded one: %v", err)
	}
	if err := os.Chmod(filepath.Join(stuck.Path, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if pruned, err := m.Prune(t.Context(), nil, false, false); err != nil || len(pruned.Items) != 1 {
		t.Errorf("prune when it can be changed: %+v, %v", pruned, err)
	}
}
