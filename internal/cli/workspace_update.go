package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/internal/statedir"
	"banger/internal/workspace"
)

// prepareAgain brings a repository up to date that was put in before. It tells whether there was one.
func (a *app) prepareAgain(ctx context.Context, vm api.VMDetail, p planned, force bool) (bool, error) {
	record, err := workspace.ReadRecord(statedir.VMDir{Path: vm.Dir}.Workspace(p.dest))
	if errors.Is(err, banger.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	show, end := a.progress()
	defer end()
	done := show.Begin("workspace", "comparing "+p.Repo.Root)
	guest := a.guest(vm)
	u, err := p.Update(ctx, guest, record, false)
	if blocked, ok := errors.AsType[*workspace.Blocked](err); ok {
		if !force || p.Directory {
			end()
			a.showBlocked(blocked)
			return true, err
		}
		if err = a.saveWork(ctx, vm, guest, record); err == nil {
			u, err = p.Update(ctx, guest, record, true)
		}
	}
	if errors.Is(err, banger.ErrNotFound) { // it was removed there
		return false, nil
	}
	if err != nil {
		return true, err
	}
	defer u.Close()
	if err := a.setWorkspace(ctx, vm, u.Begun()); err != nil {
		return true, err
	}
	record, err = u.Send(ctx, guest, sizes(show, "workspace", "sending "+p.Repo.Root))
	if err == nil {
		err = a.setWorkspace(ctx, vm, record)
	}
	if err != nil {
		return true, err
	}
	done()
	end()
	a.notice("%d files written, %d removed in %s:%s", len(u.Written), len(u.Removed), vm.Spec.Name, p.dest)
	if len(u.Kept) > 0 {
		a.notice("%d files have changed there and not here: they stay as they are", len(u.Kept))
	}
	for _, notice := range u.Notices {
		a.notice("%s", notice)
	}
	return true, nil
}

// saveWork puts all that a VM's repository has into the host's, as workspace pull does.
func (a *app) saveWork(ctx context.Context, vm api.VMDetail, guest workspace.Guest, record workspace.Record) error {
	c, err := workspace.Look(ctx, guest, record, true)
	if err != nil {
		return err
	}
	defer c.Close()
	refs, err := c.Save(ctx, record.HostPath, workspace.Namespace(vm.VM, a.now()))
	if err != nil {
		return err
	}
	a.notice("the work in %s is kept in %s:", record.GuestPath, record.HostPath)
	return a.printRefs(refs)
}

func (a *app) showBlocked(b *workspace.Blocked) {
	for _, list := range []struct {
		what  string
		names []string
	}{{"commit", b.Commits}, {"changed", b.Files}, {"staged", b.Staged}} {
		for _, name := range list.names {
			a.notice("  %-8s  %s", list.what, name)
		}
	}
}

func (a *app) workspacePush() *cobra.Command {
	var guestPath string
	cmd := &cobra.Command{
		Use: "push [flags] VM [PATH]", Short: "bring newer commits of a repository into a running VM",
		Long: `The commits of the branch that is checked out here go to the repository that was put into the VM, as refs/remotes/host/BRANCH there. The
VM's branch of that name follows, with its files if it is checked out, when that loses nothing: when it has no commits that the one
here lacks, and no changes in files that come. Files here that are not committed stay here: for them there is workspace prepare.`,
		Example: `  banger workspace push devbox
  banger workspace push devbox ~/src/app`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return inputError(cmd, "want the name of a VM, and at most one path")
			}
			return nil
		},
		ValidArgsFunction: a.completeVMs(1, banger.StateRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, err := a.show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if vm.State != banger.StateRunning {
				return notRunning(vm.Spec.Name, vm.State)
			}
			return a.push(cmd.Context(), vm, args[1:], guestPath)
		},
	}
	addGuestPath(cmd, &guestPath)
	return cmd
}

func (a *app) push(ctx context.Context, vm api.VMDetail, paths []string, guestPath string) error {
	ws, pushed, err := a.pushTo(ctx, vm, paths, guestPath)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(pushed)
	}
	a.showPushed(vm, ws, pushed)
	return nil
}

func (a *app) pushTo(ctx context.Context, vm api.VMDetail, paths []string, guestPath string) (ws banger.Workspace, pushed workspace.Pushed, err error) {
	ws, repo, err := pushedTo(ctx, vm, paths, guestPath)
	if err != nil {
		return ws, pushed, err
	}
	if ws.Directory {
		return ws, pushed, filesOnly(ws, "it has no commits", "banger workspace prepare "+vm.Spec.Name)
	}
	record, err := workspace.ReadRecord(statedir.VMDir{Path: vm.Dir}.Workspace(ws.GuestPath))
	if err != nil {
		return ws, pushed, err
	}
	show, end := a.progress()
	defer end()
	done := show.Begin("workspace", "comparing "+repo.Root)
	guest := a.guest(vm)
	c, err := workspace.Look(ctx, guest, record, false)
	if err != nil {
		return ws, pushed, err
	}
	u, pushed, err := repo.Push(ctx, guest, c, record)
	if err != nil {
		return ws, pushed, err
	}
	defer u.Close()
	if err := a.setWorkspace(ctx, vm, u.Begun()); err != nil {
		return ws, pushed, err
	}
	record, err = u.Send(ctx, guest, sizes(show, "workspace", "sending "+repo.Root))
	if err == nil {
		err = a.setWorkspace(ctx, vm, record)
	}
	if err == nil {
		done()
	}
	return ws, pushed, err
}

// filesOnly refuses what needs a repository.
func filesOnly(ws banger.Workspace, why, hint string) error {
	return &banger.Error{Kind: banger.ErrInvalid, Op: "workspace", Subject: ws.GuestPath, Err: fmt.Errorf("the files alone of %s went in: %s", ws.HostPath, why), Hint: hint}
}

// pushedTo finds the repository of the host, and what there is of it in a VM.
func pushedTo(ctx context.Context, vm api.VMDetail, paths []string, guestPath string) (banger.Workspace, workspace.Repo, error) {
	if len(paths) == 0 {
		ws, err := workspaceOf(vm, guestPath)
		if err != nil {
			return ws, workspace.Repo{}, err
		}
		repo, err := workspace.Inspect(ctx, ws.HostPath)
		return ws, repo, err
	}
	repo, err := workspace.Inspect(ctx, paths[0])
	if err != nil {
		return banger.Workspace{}, repo, err
	}
	for _, ws := range vm.Workspaces {
		if ws.HostPath == repo.Root && (guestPath == "" || guestPath == ws.GuestPath) {
			return ws, repo, nil
		}
	}
	return banger.Workspace{}, repo, &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: vm.Spec.Name, Err: fmt.Errorf("%s has not been put in", repo.Root),
		Hint: "banger workspace prepare " + vm.Spec.Name + " " + filepath.Clean(paths[0])}
}

func (a *app) showPushed(vm api.VMDetail, ws banger.Workspace, p workspace.Pushed) {
	a.notice("%s of %s:%s is at %.12s", p.Ref, vm.Spec.Name, ws.GuestPath, p.Head)
	if p.Moved {
		a.notice("so is its branch %s (%d files written, %d removed)", p.Branch, len(p.Written), len(p.Removed))
		return
	}
	a.notice("its branch %s stays where it is: %s", p.Branch, p.Reason)
	for _, name := range p.Files {
		a.notice("  %s", name)
	}
	a.notice("in the VM: git merge host/%s", p.Branch)
}
