package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/workspace"
)

// pulled is what a pull did, for programs.
type pulled struct {
	Refs    map[string]string  `json:"refs"`              // in the host's repository: name → object id; null: none was written
	Branch  string             `json:"branch,omitempty"`  // that the host's repository has for it; absent: --branch was not given
	Head    string             `json:"head"`              // object id of what was pulled; "": the VM's repository has no commit
	Applied *workspace.Applied `json:"applied,omitempty"` // absent: --apply was not given
	Notices []string           `json:"notices,omitempty"` // for people: what was left out or looked wrong; absent: nothing
}

type pullFlags struct {
	guestPath, branch string
	changes, apply    bool
	dryRun            bool
}

func (a *app) workspacePull() *cobra.Command {
	var flags pullFlags
	cmd := &cobra.Command{
		Use: "pull [flags] VM", Short: "bring the work on a repository in a VM back into the host's", Args: oneVM,
		Long: `Commits of all branches, the stash and what is not committed come into the repository here as refs/banger/VM/ID/TIME/…; with
--branch the VM's commits also as that branch. The branch that you have checked out, its index and its files stay as they
are, unless --apply is given: then the VM's files go into the work tree, if no file has changed on both sides.`,
		Example: `  banger workspace pull devbox --branch fix-login
  banger workspace pull devbox --branch fix-login --with-changes     what is not committed there, as a commit
  banger workspace pull devbox --apply                               into the files here`,
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if flags.dryRun && !flags.apply {
				return banger.Invalidf("--dry-run is about --apply")
			}
			return a.pull(cmd.Context(), args[0], flags)
		},
	}
	addGuestPath(cmd, &flags.guestPath)
	cmd.Flags().StringVar(&flags.branch, "branch", "", "`branch` here that gets the VM's commits: a new one, or one that they follow")
	cmd.Flags().BoolVar(&flags.changes, "with-changes", false, "the branch also gets what is not committed in the VM, as a commit")
	cmd.Flags().BoolVar(&flags.apply, "apply", false, "write the VM's files into the work tree here")
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "only tell what --apply would write")
	_ = cmd.RegisterFlagCompletionFunc("branch", cobra.NoFileCompletions)
	return cmd
}

func (a *app) pull(ctx context.Context, ref string, flags pullFlags) error {
	f, err := a.fetch(ctx, ref, flags.guestPath, maxUntracked)
	if err != nil {
		return err
	}
	defer f.Close()
	done, err := a.bring(ctx, f, flags)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	return a.showPulled(f, done, flags)
}

// bring puts what was fetched into the host's repository.
func (a *app) bring(ctx context.Context, f *fetched, flags pullFlags) (done pulled, err error) {
	if f.record.Origin().Repo == "" {
		return done, &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: f.ws.HostPath, Err: errors.New("the repository that it came from is not there"), Hint: "banger workspace export " + f.vm.Spec.Name}
	}
	if f.ws.Directory && (!flags.apply || flags.branch != "" || flags.changes) {
		return done, filesOnly(f.ws, "there is no branch and no commit for them", "banger workspace pull --apply "+f.vm.Spec.Name)
	}
	done = pulled{Head: f.Head(flags.changes), Branch: flags.branch}
	if flags.apply {
		applied, err := f.Apply(ctx, flags.dryRun)
		if err != nil {
			return done, err
		}
		done.Applied = &applied
	}
	if !flags.dryRun && f.ws.Directory {
		if err := a.remember(ctx, f); err != nil {
			return done, err
		}
	} else if !flags.dryRun {
		if done.Refs, err = f.Save(ctx, f.ws.HostPath, workspace.Namespace(f.vm.VM, a.now())); err != nil {
			return done, err
		}
		if flags.branch != "" && done.Head != "" {
			if err := workspace.SetBranch(ctx, f.ws.HostPath, flags.branch, done.Head); err != nil {
				return done, err
			}
		}
		if err := a.remember(ctx, f); err != nil {
			return done, err
		}
	}
	done.Notices = f.Notices
	return done, nil
}

// remember notes that the host has all that the guest had.
func (a *app) remember(ctx context.Context, f *fetched) error {
	exported, err := f.Contents(ctx)
	if err != nil {
		return err
	}
	f.record.Exported = &exported
	return f.record.Write(f.path)
}

func (a *app) showPulled(f *fetched, done pulled, flags pullFlags) error {
	if done.Applied != nil {
		for _, name := range done.Applied.Written {
			fmt.Fprintf(a.Out, "  written  %s\n", escape(name))
		}
		for _, name := range done.Applied.Removed {
			fmt.Fprintf(a.Out, "  removed  %s\n", escape(name))
		}
		if len(done.Applied.Written)+len(done.Applied.Removed) == 0 {
			a.notice("nothing to write: the files here are as those in the VM")
		}
	}
	if err := a.printRefs(done.Refs); err != nil {
		return err
	}
	if flags.branch != "" && done.Head != "" && !flags.dryRun {
		a.notice("branch %s of %s is at %.12s: git diff HEAD...%s", flags.branch, f.ws.HostPath, done.Head, flags.branch)
	} else if id := done.Refs[refNamed(done.Refs, "/worktree")]; id != "" && !flags.apply {
		a.notice("what was not committed: git stash apply %.12s", id)
	}
	a.showOthers(f)
	for _, notice := range done.Notices {
		a.notice("%s", notice)
	}
	return nil
}

func (a *app) printRefs(refs map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		if _, err := fmt.Fprintf(a.Out, "  %.12s  %s\n", refs[name], escape(name)); err != nil {
			return err
		}
	}
	return nil
}

// refNamed finds the ref whose name ends so.
func refNamed(refs map[string]string, ending string) string {
	for name := range refs {
		if strings.HasSuffix(name, ending) {
			return name
		}
	}
	return ""
}
