package workspace

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/atomicfile"
)

// Saves is the directory where the work of VMs is kept when they are deleted: for each a bundle and what it is, as JSON.
type Saves struct{ Dir string }

const (
	// MaxSaved is how many bytes of untracked files are saved from one repository.
	MaxSaved = 1 << 30
	// SavesKept is how long work is kept; the last of a VM stays longer.
	SavesKept = 30 * 24 * time.Hour
)

// Keep saves all that a VM's workspace has and its host does not: nothing when there is no such thing. What it returns is durable.
// Repositories below the workspace are kept too, each by itself. Errors: ErrRefused for too much; those of reading the guest.
func (s Saves) Keep(ctx context.Context, guest Guest, vm banger.VM, record Record, at time.Time) ([]banger.Autosave, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, spaceIn(s.Dir, err)
	}
	var kept []banger.Autosave
	todo, known := []Record{record}, map[string]bool{record.GuestPath: true}
	for n := 0; len(todo) > 0; n++ {
		one := todo[0]
		todo = todo[1:]
		if n == maxRepositories {
			return kept, &banger.Error{Kind: banger.ErrRefused, Op: "save the work in", Subject: record.GuestPath, Err: fmt.Errorf("there are more than %d repositories in it", maxRepositories)}
		}
		more, save, err := s.keep(ctx, guest, vm, one, at, n)
		if err != nil {
			return kept, &banger.Error{Op: "save the work in", Subject: one.GuestPath, Err: err}
		}
		if save != nil {
			kept = append(kept, *save)
		}
		for _, other := range more {
			if !known[other.GuestPath] {
				known[other.GuestPath] = true
				todo = append(todo, other)
			}
		}
	}
	return kept, nil
}

// maxRepositories bounds how many repositories below one workspace are saved.
const maxRepositories = 200

// others are the repositories below a workspace and the other work trees of it.
func (c *Copy) others(record Record) (list []Record) {
	for _, dir := range c.Linked {
		list = append(list, Record{Workspace: banger.Workspace{GuestPath: dir, HostPath: record.HostPath, Head: record.Head, Packs: record.Packs}, nested: true})
	}
	for _, name := range c.Nested {
		one, sent := record.Subs[name]
		if !sent {
			one.HostPath = path.Join(record.HostPath, name)
		}
		one.GuestPath, one.nested = guestPath(record.GuestPath, name), true
		list = append(list, one)
	}
	return list
}

func (s Saves) keep(ctx context.Context, guest Guest, vm banger.VM, record Record, at time.Time, n int) (others []Record, save *banger.Autosave, err error) {
	origin := record.Origin()
	origin.MaxUntracked = MaxSaved
	c, err := Fetch(ctx, guest, record.GuestPath, s.Dir, origin)
	if errors.Is(err, banger.ErrNotFound) {
		if record.nested { // another work tree that has gone
			return nil, nil, nil
		}
		return nil, nil, checkGone(ctx, guest, record.GuestPath)
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	others = c.others(record)
	work, err := c.Work(ctx, record.Exported)
	if err != nil || !work {
		return others, nil, err
	}
	if err := c.checkWhole(); err != nil {
		return nil, nil, err
	}
	id := fmt.Sprintf("%s-%s-%s-%d", vm.Spec.Name, vm.ID, at.UTC().Format(timeFormat), n)
	save = &banger.Autosave{ID: id, VM: vm.Spec.Name, VMID: vm.ID, GuestPath: record.GuestPath, HostPath: record.HostPath, At: at.UTC(), Bundle: filepath.Join(s.Dir, id+".bundle"), Pending: !record.Directory}
	namespace := Namespace(vm, at)
	if n > 0 {
		namespace += "/" + strconv.Itoa(n)
	}
	if save.Refs, err = c.Bundle(ctx, save.Bundle, namespace); err != nil {
		return nil, nil, err
	}
	if len(save.Refs) == 0 {
		return others, nil, nil
	}
	info, err := os.Stat(save.Bundle)
	if err != nil {
		return nil, nil, err
	}
	save.Bytes, save.Notices, save.Shallow = info.Size(), c.Notices, c.shallow
	return others, save, s.write(*save)
}

// checkGone makes sure that the guest has removed a repository with its files. Errors: ErrConflict for files without a repository.
func checkGone(ctx context.Context, guest Guest, root string) error {
	for node, err := range guest.walk(ctx, root) {
		if errors.Is(err, banger.ErrNotFound) {
			return nil
		}
		if err == nil {
			err = &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("its .git is gone, but %.100q is there", node.path), Hint: "copy the files out: banger vm cp"}
		}
		return err
	}
	return nil
}

func (s Saves) write(save banger.Autosave) error {
	text, err := json.Marshal(save)
	if err != nil {
		return err
	}
	return spaceIn(s.Dir, atomicfile.Write(filepath.Join(s.Dir, save.ID+".json"), text, 0o600))
}

// List gives all that is kept, the oldest first. A file that can't be read is left out.
func (s Saves) List() ([]banger.Autosave, error) {
	names, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []banger.Autosave
	for _, entry := range names {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok {
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.Dir, entry.Name()))
		var save banger.Autosave
		if err == nil && json.Unmarshal(text, &save) == nil && save.ID == id {
			list = append(list, save)
		}
	}
	slices.SortFunc(list, func(a, b banger.Autosave) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.ID, b.ID)) })
	return list, nil
}

// FindSave finds one of list by its id or a unique beginning of it. Errors: ErrNotFound; ErrInvalid.
func FindSave(list []banger.Autosave, ref string) (banger.Autosave, error) {
	var found []banger.Autosave
	for _, save := range list {
		if save.ID == ref {
			return save, nil
		}
		if ref != "" && strings.HasPrefix(save.ID, ref) {
			found = append(found, save)
		}
	}
	switch len(found) {
	case 0:
		return banger.Autosave{}, &banger.Error{Kind: banger.ErrNotFound, Op: "autosave", Subject: strconv.Quote(ref), Hint: "banger autosave list"}
	case 1:
		return found[0], nil
	}
	return banger.Autosave{}, &banger.Error{Kind: banger.ErrInvalid, Op: "autosave", Subject: strconv.Quote(ref), Err: fmt.Errorf("%d begin so", len(found)), Hint: "give more of the id: banger autosave list"}
}

// Landed notes that the refs of a save are in the host's repository.
func (s Saves) Landed(ref string) (banger.Autosave, error) {
	list, err := s.List()
	if err != nil {
		return banger.Autosave{}, err
	}
	save, err := FindSave(list, ref)
	if err == nil && save.Pending {
		save.Pending = false
		err = s.write(save)
	}
	return save, err
}

// Prune removes what is older than age, but never the last of a VM, nor, unless all is set, what is in no repository yet. With dryRun it
// only tells.
func (s Saves) Prune(now time.Time, age time.Duration, all, dryRun bool) (removed []banger.Autosave, err error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	last := map[banger.VMID]time.Time{}
	for _, save := range list {
		last[save.VMID] = save.At // the newest comes last
	}
	for _, save := range list {
		if now.Sub(save.At) < age || save.At.Equal(last[save.VMID]) || save.Pending && !all {
			continue
		}
		if !dryRun {
			if err := errors.Join(removeIfThere(filepath.Join(s.Dir, save.ID+".json")), removeIfThere(filepath.Join(s.Dir, save.ID+".bundle"))); err != nil {
				return removed, err
			}
		}
		removed = append(removed, save)
	}
	return removed, nil
}

// CleanUp removes what saves that were cut off have left.
func (s Saves) CleanUp() error {
	names, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range names {
		name := filepath.Join(s.Dir, entry.Name())
		id, isBundle := strings.CutSuffix(entry.Name(), ".bundle")
		_, noRecord := os.Stat(filepath.Join(s.Dir, id+".json"))
		if strings.HasPrefix(entry.Name(), "copy-") || strings.HasPrefix(entry.Name(), ".") || strings.HasSuffix(entry.Name(), ".tmp") || isBundle && errors.Is(noRecord, fs.ErrNotExist) {
			err = errors.Join(err, os.RemoveAll(name))
		}
	}
	return err
}

// Restore puts the refs of a save into a repository. Those that are there already stay as they are. The bundle is unpacked beside it first:
// what goes into the repository is checked like every fetch. Errors: ErrNotFound for a bundle that is gone; ErrConflict when the
// repository has other refs of these names, or lacks the commits that the bundle builds on.
func Restore(ctx context.Context, save banger.Autosave, repo string) (err error) {
	if _, err := os.Stat(save.Bundle); err != nil {
		return &banger.Error{Kind: banger.ErrNotFound, Op: "restore", Subject: save.ID, Err: err}
	}
	c, err := newCopy(ctx, os.TempDir(), Origin{Repo: repo})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	err = c.restore(ctx, save, repo)
	if err == nil || errors.Is(err, banger.ErrUnavailable) || errors.Is(err, banger.ErrInterrupted) {
		return err
	}
	return &banger.Error{Kind: banger.ErrConflict, Op: "restore", Subject: save.ID, Err: err, Hint: "in another clone of the repository: git fetch " + save.Bundle + " 'refs/banger/*:refs/banger/*'"}
}

func (c *Copy) restore(ctx context.Context, save banger.Autosave, repo string) error {
	shallow, err := c.missing(ctx, save.Shallow)
	if err == nil {
		err = c.setShallow(append(slices.Clone(shallow), c.hostShallow...))
	}
	if err != nil {
		return err
	}
	quiet := []string{"fetch", "--quiet", "--atomic", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--no-recurse-submodules", "--refmap="}
	if err := c.g.run(ctx, nil, io.Discard, append(quiet, save.Bundle, "refs/*:refs/*")...); err != nil {
		return err
	}
	if len(shallow) > 0 { // a shallow clone that was made in the guest, whose history the host has no part of
		quiet = append(quiet, "--update-shallow")
	}
	for name := range save.Refs {
		quiet = append(quiet, name+":"+name)
	}
	return (git{dir: repo}).run(ctx, nil, io.Discard, slices.Insert(quiet, len(quiet)-len(save.Refs), c.dir)...)
}
