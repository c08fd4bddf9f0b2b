package mcp

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"banger"
	"banger/internal/workspace"
)

// place names a repository in a VM.
type place struct {
	ref
	GuestPath string `json:"guest_path,omitempty" jsonschema:"directory in the VM, if several repositories went in"`
}

type prepareIn struct {
	ref
	Path      string `json:"path" jsonschema:"path on the host of a repository, or of a directory in none"`
	GuestPath string `json:"guest_path,omitempty" jsonschema:"directory in the VM (default: /root/repo)"`
	Branch    string `json:"branch,omitempty" jsonschema:"a new branch in the VM (default: the one that is checked out on the host)"`
	Untracked bool   `json:"include_untracked,omitempty" jsonschema:"files that git neither tracks nor ignores go in, too"`
	Force     bool   `json:"force,omitempty" jsonschema:"work in the VM that would be lost is saved as refs/banger/... of the host's repository, and replaced"`
}

type prepareOut struct {
	Workspaces []workspaceInfo `json:"workspaces" jsonschema:"all repositories that went into the VM"`
	beside
}

type statusOut struct {
	Branch    string   `json:"branch,omitempty" jsonschema:"the branch that is checked out in the VM"`
	Head      string   `json:"head,omitempty" jsonschema:"its commit"`
	Base      string   `json:"base,omitempty" jsonschema:"the commit that went in"`
	Ahead     int      `json:"ahead" jsonschema:"commits since it went in"`
	Behind    int      `json:"behind" jsonschema:"commits that went in and are not in it any more"`
	Branches  []string `json:"branches" jsonschema:"all branches in the VM"`
	Stashes   int      `json:"stashes" jsonschema:"number of stashes in the VM"`
	Changed   []change `json:"changed" jsonschema:"tracked files with changes that are not committed; at most 1000"`
	Untracked []change `json:"untracked" jsonschema:"files that git neither tracks nor ignores; at most 1000"`
	Nested    []string `json:"nested,omitempty" jsonschema:"repositories of their own below it, which are not part of this"`
	beside
}

type change struct {
	Path string `json:"path" jsonschema:"below the root of the repository"`
	What string `json:"what" jsonschema:"added, modified or deleted"`
	Sent bool   `json:"sent" jsonschema:"it is as it went in: the host has it"`
}

type diffIn struct {
	place
	MaxBytes int `json:"max_bytes,omitempty" jsonschema:"bytes of the patch in the answer: 1 to 1048576 (default: 65536). Of more the beginning and the end are shown; vm_output gives the rest"`
}

type diffOut struct {
	Patch     string `json:"patch" jsonschema:"for git apply; control characters are shown as escapes"`
	Bytes     int64  `json:"bytes" jsonschema:"size of the whole patch"`
	Truncated bool   `json:"truncated" jsonschema:"not all of it is in this answer"`
	OutputID  string `json:"output_id,omitempty" jsonschema:"names the whole patch for vm_output, when truncated"`
	beside
}

type pullOut struct {
	Repository string    `json:"repository" jsonschema:"the host's repository that has the work now"`
	Refs       []refInfo `json:"refs" jsonschema:"what was put there. worktree is what was not committed: git stash apply COMMIT"`
	beside
}

type refInfo struct {
	Name   string `json:"name" jsonschema:"refs/banger/VM/ID/TIME/..."`
	Commit string `json:"commit" jsonschema:"object id"`
}

type pushOut struct {
	Branch string   `json:"branch" jsonschema:"the branch that is checked out on the host"`
	Head   string   `json:"head" jsonschema:"the commit of the host's branch"`
	Ref    string   `json:"ref" jsonschema:"the ref in the VM that has it in any case"`
	Moved  bool     `json:"moved" jsonschema:"the VM's own branch of this name is there too"`
	Reason string   `json:"reason,omitempty" jsonschema:"why the VM's branch stays where it is"`
	Files  []string `json:"files,omitempty" jsonschema:"files that are the reason"`
	beside
}

type saveInfo struct {
	ID         string    `json:"id" jsonschema:"names it for banger autosave restore"`
	VM         string    `json:"vm" jsonschema:"name of the VM that is gone"`
	Repository string    `json:"repository" jsonschema:"the host's repository that the work is of"`
	SavedAt    string    `json:"saved_at" jsonschema:"RFC 3339"`
	Landed     bool      `json:"landed" jsonschema:"the refs are in the repository; else only in the bundle"`
	Bundle     string    `json:"bundle" jsonschema:"path on the host of a file that git fetch reads"`
	Bytes      int64     `json:"bytes" jsonschema:"size of the bundle"`
	Refs       []refInfo `json:"refs" jsonschema:"what was kept"`
}

func saveOf(s banger.Autosave) saveInfo {
	return saveInfo{s.ID, s.VM, s.HostPath, moment(s.At), !s.Pending, s.Bundle, s.Bytes, refsOf(s.Refs)}
}

func refsOf(refs map[string]string) []refInfo {
	var list []refInfo
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		list = append(list, refInfo{name, refs[name]})
	}
	return list
}

type savesOut struct {
	Autosaves []saveInfo `json:"autosaves" jsonschema:"the oldest first"`
}

func (s *Server) workspaceTools() {
	add(s, about{name: "workspace_prepare", title: "Put a repository into a VM", destroys: true, host: "reads the repository; with force it gets refs/banger/...",
		text: `Put a repository of the host into a running VM: a clone with its last commits and the edits of its work tree. Again, it brings what has changed on the
host since. When work in the VM would be lost it is listed and nothing is done, unless force is set.`}, prepare)
	add(s, about{name: "workspace_status", title: "Show what was done to a repository in a VM", reads: true, repeatable: true, host: "reads the repository",
		text: "Show commits and changes in a VM's repository since it went in. The VM need not run."}, status)
	add(s, about{name: "workspace_diff", title: "Show the changes of a repository in a VM", reads: true, repeatable: true, host: "reads the repository",
		text: "Show everything that was done to a VM's repository since it went in as one patch: commits, changes and untracked files. The VM need not run."}, diff)
	add(s, about{name: "workspace_pull", title: "Bring work in a VM back to the host", host: "the repository gets objects and new refs/banger/...; nothing else of it changes",
		text: `Bring all commits, and what is not committed, of a VM's repository into the host's repository that it came from, as refs/banger/VM/ID/TIME/...: head,
branches, worktree, stash. Branches, index and files of the host stay as they are: use git there, for example git merge REF. The VM need not run.`}, pull)
	add(s, about{name: "workspace_push", title: "Bring newer commits of the host into a VM", host: "reads the repository",
		text: `Bring the commits of the branch that is checked out on the host into the VM's repository, as refs/remotes/host/BRANCH there. The VM's branch of that name
follows when that loses nothing.`}, push)
	add(s, about{name: "autosave_list", title: "List work of deleted VMs", reads: true, repeatable: true, host: "nothing",
		text: "List what was kept of VMs that are gone: work on repositories that this server may use."},
		func(ctx context.Context, c *call, _ struct{}) (savesOut, error) {
			var out savesOut
			all, err := c.Autosaves(ctx)
			for _, save := range all {
				if c.inside(filepath.Clean(save.HostPath)) {
					out.Autosaves = append(out.Autosaves, saveOf(save))
				}
			}
			return out, err
		})
}

func prepare(ctx context.Context, c *call, in prepareIn) (out prepareOut, err error) {
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return out, err
	}
	repo := Repository{Branch: in.Branch, GuestPath: in.GuestPath, Untracked: in.Untracked}
	if repo.Path, err = c.repository(ctx, in.Path); err != nil {
		return out, err
	}
	if in.Force { // work goes into the repository that is there already
		if err := c.workspaces(ctx, vm, ""); err != nil {
			return out, err
		}
	}
	if err := c.Prepare(ctx, string(vm.ID), repo, in.Force); err != nil {
		return out, err
	}
	now, err := c.again(ctx, vm.ID)
	return prepareOut{now.Workspaces, c.told()}, err
}

// theirs gives a VM whose repository may be looked at and brought back.
func (c *call) theirs(ctx context.Context, in place) (string, error) {
	vm, err := c.vm(ctx, in.VM)
	if err == nil {
		err = c.workspaces(ctx, vm, in.GuestPath)
	}
	return string(vm.ID), err
}

func status(ctx context.Context, c *call, in place) (out statusOut, err error) {
	id, err := c.theirs(ctx, in)
	if err != nil {
		return out, err
	}
	s, err := c.Status(ctx, id, in.GuestPath)
	if err != nil {
		return out, err
	}
	for _, notice := range s.Notices {
		c.note(notice)
	}
	return statusOut{s.Branch, s.Head, s.Base, s.Ahead, s.Behind, s.Branches, s.Stashes, c.changes(s.Tracked), c.changes(s.Untracked), s.Nested, c.told()}, nil
}

func (c *call) changes(list []workspace.Change) []change {
	const most = 1000
	if len(list) > most {
		c.note(fmt.Sprintf("%d more files are not listed", len(list)-most))
		list = list[:most]
	}
	var out []change
	for _, one := range list {
		out = append(out, change(one))
	}
	return out
}

func diff(ctx context.Context, c *call, in diffIn) (out diffOut, err error) {
	limit := in.MaxBytes
	if limit == 0 {
		limit = defaultRead
	}
	if limit < 0 || limit > maxOutput {
		return out, banger.Invalidf("max_bytes %d: want 1 to %d", limit, maxOutput)
	}
	id, err := c.theirs(ctx, in.place)
	if err != nil {
		return out, err
	}
	patch, none, err := newCaptures()
	if err != nil {
		return out, err
	}
	if err := c.Diff(ctx, id, in.GuestPath, patch); err != nil {
		patch.close()
		none.close()
		return out, err
	}
	out.Bytes = patch.size()
	if out.Truncated = out.Bytes > int64(limit); out.Truncated {
		out.OutputID = c.outputs.keep(patch, none)
	} else {
		defer patch.close()
		defer none.close()
	}
	out.Patch, err = patch.show(limit, out.OutputID, "stdout")
	out.beside = c.told()
	return out, err
}

func pull(ctx context.Context, c *call, in place) (out pullOut, err error) {
	id, err := c.theirs(ctx, in)
	if err != nil {
		return out, err
	}
	refs, notices, err := c.Pull(ctx, id, in.GuestPath)
	if err != nil {
		return out, err
	}
	for _, notice := range notices {
		c.note(notice)
	}
	vm, err := c.Show(ctx, id)
	if err != nil {
		return out, err
	}
	for _, ws := range vm.Workspaces {
		if in.GuestPath == "" || ws.GuestPath == in.GuestPath {
			out.Repository = ws.HostPath
		}
	}
	out.Refs, out.beside = refsOf(refs), c.told()
	return out, nil
}

func push(ctx context.Context, c *call, in place) (out pushOut, err error) {
	id, err := c.theirs(ctx, in)
	if err != nil {
		return out, err
	}
	p, err := c.Push(ctx, id, in.GuestPath)
	return pushOut{p.Branch, p.Head, p.Ref, p.Moved, p.Reason, p.Files, c.told()}, err
}
