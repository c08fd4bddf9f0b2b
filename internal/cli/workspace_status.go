package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/internal/statedir"
	"banger/internal/workspace"
)

// fetched is a copy of a guest's repository, with what it is a copy of.
type fetched struct {
	*workspace.Copy
	vm     api.VMDetail
	ws     banger.Workspace
	record workspace.Record
	path   string // of the record
}

// fetch copies the repository of a VM. untracked bounds the bytes of untracked files that are read; 0 reads none.
func (a *app) fetch(ctx context.Context, ref, guestPath string, untracked int64) (*fetched, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	vm, err := c.ShowVM(ctx, ref)
	if err != nil {
		return nil, err
	}
	ws, err := workspaceOf(vm, guestPath)
	if err != nil {
		return nil, err
	}
	f := &fetched{vm: vm, ws: ws, path: statedir.VMDir{Path: vm.Dir}.Workspace(ws.GuestPath)}
	f.record, err = workspace.ReadRecord(f.path)
	if errors.Is(err, banger.ErrNotFound) { // told by the daemon's record alone: every file counts as the guest's own
		f.record, err = workspace.Record{Workspace: ws}, nil
	}
	if err != nil {
		return nil, err
	}
	show, end := a.progress()
	defer end()
	defer show.Begin("workspace", "reading "+ws.GuestPath)()
	origin := f.record.Origin()
	origin.MaxUntracked = untracked
	guest, err := a.guestOf(c, vm)
	if err != nil {
		return nil, err
	}
	f.Copy, err = workspace.Fetch(ctx, guest, ws.GuestPath, os.TempDir(), origin)
	if errors.Is(err, banger.ErrNotFound) {
		err = &banger.Error{Op: "vm", Subject: vm.Spec.Name, Err: err, Hint: "bring it again: banger workspace prepare " + vm.Spec.Name + " " + ws.HostPath}
	}
	return f, err
}

// maxUntracked is how much of untracked files comes back.
const maxUntracked = 1 << 30

// addGuestPath adds the flag that tells several workspaces apart.
func addGuestPath(cmd *cobra.Command, guestPath *string) {
	cmd.Flags().StringVar(guestPath, "guest-path", "", "`directory` in the VM, if it has several repositories")
	_ = cmd.RegisterFlagCompletionFunc("guest-path", cobra.NoFileCompletions)
}

func (a *app) workspaceStatus() *cobra.Command {
	var guestPath string
	cmd := &cobra.Command{
		Use: "status [flags] VM", Short: "show what has been done to a repository in a VM", Args: oneVM,
		Long:              "Commits and changes against what went in. The VM may run or not; nothing changes.",
		Example:           "  banger workspace status devbox\n  banger workspace status --json devbox",
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.fetch(cmd.Context(), args[0], guestPath, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			status, err := f.Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(status)
			}
			return a.showStatus(f, status)
		},
	}
	addGuestPath(cmd, &guestPath)
	return cmd
}

func (a *app) showStatus(f *fetched, s workspace.Status) error {
	fmt.Fprintf(a.Out, "%s:%s, from %s\n", escape(f.vm.Spec.Name), escape(f.ws.GuestPath), escape(f.ws.HostPath))
	where := "branch " + escape(s.Branch)
	if s.Branch == "" {
		where = "no branch"
	}
	if f.ws.Directory {
		fmt.Fprintln(a.Out, "files alone, no repository")
	} else {
		fmt.Fprintf(a.Out, "%s, %s since it went in", where, count(s.Ahead, "commit", "commits"))
		if s.Behind > 0 {
			fmt.Fprintf(a.Out, " (and %s of before is gone from it)", count(s.Behind, "commit", "commits"))
		}
		fmt.Fprintln(a.Out)
	}
	if s.Stashes > 0 {
		fmt.Fprintln(a.Out, count(s.Stashes, "stash", "stashes"))
	}
	clean := true
	for _, change := range append(s.Tracked, s.Untracked...) {
		if change.Sent {
			continue
		}
		clean = false
		fmt.Fprintf(a.Out, "  %-9s  %s\n", change.What, escape(change.Path))
	}
	if clean {
		fmt.Fprintln(a.Out, "no file has changed since it went in")
	}
	a.showOthers(f)
	for _, notice := range s.Notices {
		a.notice("%s", notice)
	}
	return nil
}

// showOthers names the repositories that are not part of what is shown.
func (a *app) showOthers(f *fetched) {
	for _, name := range f.Nested {
		a.notice("%s is a repository of its own, not part of this; it is kept when the VM is deleted, and now copied by: banger vm cp %s:%s .", name, f.vm.Spec.Name, path.Join(f.ws.GuestPath, name))
	}
	for _, dir := range f.Linked {
		if name, inside := strings.CutPrefix(dir, f.ws.GuestPath+"/"); !inside || !slices.Contains(f.Nested, name) {
			a.notice("%s is another work tree of it: its branch is part of this, its changes are not; they are kept when the VM is deleted", dir)
		}
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (a *app) workspaceDiff() *cobra.Command {
	var guestPath, base string
	cmd := &cobra.Command{
		Use: "diff [flags] VM", Short: "show the changes of a repository in a VM as a patch", Args: oneVM,
		Long:              "Everything since it went in, commits and untracked files too. On a terminal a pager shows it: $PAGER, or less.",
		Example:           "  banger workspace diff devbox\n  banger workspace diff devbox --base-commit main",
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.fetch(cmd.Context(), args[0], guestPath, maxUntracked)
			if err != nil {
				return err
			}
			defer f.Close()
			return a.paged(cmd.Context(), func(w io.Writer, color bool) error { return f.Patch(cmd.Context(), base, w, color) })
		},
	}
	addGuestPath(cmd, &guestPath)
	addBase(cmd, &base)
	return cmd
}

func addBase(cmd *cobra.Command, base *string) {
	cmd.Flags().StringVar(base, "base-commit", "", "compare with this `commit` (default: what went in)")
	_ = cmd.RegisterFlagCompletionFunc("base-commit", cobra.NoFileCompletions)
}

func (a *app) workspaceExport() *cobra.Command {
	var guestPath, base, output string
	cmd := &cobra.Command{
		Use: "export [flags] VM", Short: "write the changes of a repository in a VM as a patch for git apply", Args: oneVM,
		Long:              "Everything since it went in, commits, untracked and binary files too. The repository in the VM stays as it is.",
		Example:           "  banger workspace export devbox -o work.patch && git apply work.patch\n  banger workspace export devbox | git apply --check",
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.fetch(cmd.Context(), args[0], guestPath, maxUntracked)
			if err != nil {
				return err
			}
			defer f.Close()
			if output == "" || output == "-" {
				return f.Patch(cmd.Context(), base, a.Out, false)
			}
			return writeWhole(output, true, func(w io.Writer) error { return f.Patch(cmd.Context(), base, w, false) })
		},
	}
	addGuestPath(cmd, &guestPath)
	addBase(cmd, &base)
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this `file` (default: standard output)")
	return cmd
}
