package cli

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
	"banger/internal/statedir"
	"banger/internal/tooling"
	"banger/internal/transfer"
	"banger/internal/tree"
	"banger/internal/workspace"
)

func (a *app) workspaceGroup() *cobra.Command {
	return a.group("workspace", "a repository goes into a VM, the work comes back", `
A repository of the host goes into a VM as a clone of its own, with the edits of the work tree. What is done to it there comes back as
git: commits and changes, into refs, branches or the work tree. Nothing is shared meanwhile.`, `
  banger vm run ./repo                         a new VM with the repository, and a shell in it
  banger workspace prepare devbox ./repo       into a VM that runs; later: what has changed here since
  banger workspace push devbox                 newer commits of the repository here
  banger workspace status devbox               what has been done there
  banger workspace diff devbox
  banger workspace pull devbox --branch fix    its commits as a branch of the repository here
  banger workspace pull devbox --apply         its changes into the work tree here
  banger workspace watch devbox                both work trees alike while this runs`,
		a.workspacePrepare(), a.workspaceStatus(), a.workspaceDiff(), a.workspaceExport(), a.workspacePull(), a.workspacePush(), a.workspaceWatch())
}

// Values of --mode.
const (
	modeClone = "shallow_overlay"
	modeFiles = "full_copy"
)

// planFlags say what of a repository travels.
type planFlags struct {
	branch, from string
	untracked    bool
	ignored      []string
	full         bool
	guestPath    string
	mode         string
	readonly     bool
	dryRun       bool
	cmd          *cobra.Command
}

func (f *planFlags) add(cmd *cobra.Command) {
	f.cmd = cmd
	flags := cmd.Flags()
	flags.StringVar(&f.branch, "branch", "", "a new `branch` in the VM; the host's branches stay as they are")
	flags.StringVar(&f.from, "from", "", "`commit` that the new branch begins at (default: HEAD with the work tree's edits)")
	flags.BoolVar(&f.untracked, "include-untracked", false, "files that git neither tracks nor ignores, too")
	flags.StringArrayVar(&f.ignored, "include-ignored", nil, "ignored files like `GLOB`, too (repeatable)")
	flags.BoolVar(&f.full, "full-history", false, "all commits instead of the last few")
	flags.StringVar(&f.guestPath, "guest-path", "", "`directory` in the VM (default: /root/repo; of several /root/NAME; of --user /workspaces/NAME)")
	flags.StringVar(&f.mode, "mode", "", "`MODE`: shallow_overlay, a clone with the edits (default for a repository), or full_copy, the files")
	flags.BoolVar(&f.readonly, "readonly", false, "without permission to write there; root can all the same")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only tell what would go in")
	for _, name := range []string{"branch", "from", "include-ignored", "guest-path"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]cobra.Completion{modeClone, modeFiles}, cobra.ShellCompDirectiveNoFileComp))
}

// errors of flags that say how a repository travels when there is none.
func (f *planFlags) unused() error {
	for _, name := range []string{"branch", "from", "include-untracked", "include-ignored", "full-history", "guest-path", "mode", "readonly", "dry-run", "no-bootstrap", "devcontainer", "no-devcontainer", "no-project"} {
		if f.cmd.Flags().Changed(name) {
			return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("--%s is about a repository, and none is named", name), Hint: "banger vm run --" + name + " … PATH"}
		}
	}
	return nil
}

// planned is a repository and where it goes.
type planned struct {
	workspace.Plan
	dest  string
	tools tooling.Plan // what is to be installed for it
}

// plan decides about each of paths, before anything is done.
func (f *planFlags) plan(ctx context.Context, paths []string, user string) ([]planned, error) {
	if f.guestPath != "" {
		if len(paths) > 1 {
			return nil, banger.Invalidf("--guest-path is one place, and %d repositories are named", len(paths))
		}
		if err := banger.ValidateGuestPath(f.guestPath); err != nil {
			return nil, err
		}
	}
	if f.mode != "" && f.mode != modeClone && f.mode != modeFiles {
		return nil, &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("--mode %q", f.mode), Hint: "--mode " + modeClone + " or --mode " + modeFiles}
	}
	var plans []planned
	for _, name := range paths {
		plan, err := f.planOne(ctx, name)
		if err != nil {
			return nil, err
		}
		dest := f.dest(plan.Repo.Root, user, len(paths) > 1)
		for _, other := range plans {
			if other.dest == dest {
				return nil, &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("%s and %s would both be %s", other.Repo.Root, plan.Repo.Root, dest), Hint: "prepare one of them by itself, with --guest-path"}
			}
		}
		plans = append(plans, planned{Plan: plan, dest: dest})
	}
	return plans, nil
}

// planOne decides about one path: a repository, or a directory that is in none.
func (f *planFlags) planOne(ctx context.Context, name string) (workspace.Plan, error) {
	repo, err := workspace.Inspect(ctx, name)
	var plan workspace.Plan
	switch {
	case workspace.IsNoRepo(err) && f.mode != modeClone:
		for _, flag := range []string{"branch", "from", "full-history", "include-ignored"} {
			if f.cmd.Flags().Changed(flag) {
				return plan, &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("--%s is about a repository, and %s is in none", flag, name), Hint: "leave it out: all files of a directory go in"}
			}
		}
		plan, err = workspace.MakeDirectoryPlan(ctx, name)
	case err == nil:
		plan, err = workspace.MakePlan(ctx, repo, workspace.Options{Branch: f.branch, From: f.from, Untracked: f.untracked, Ignored: f.ignored, FullHistory: f.full})
		if err == nil && f.mode == modeFiles {
			plan, err = plan.AsFiles()
		}
	}
	plan.Readonly = f.readonly
	return plan, err
}

// dest is where a repository goes: /root/repo, or below /root by its own name beside others, or /workspaces/NAME for another user.
func (f *planFlags) dest(root, user string, several bool) string {
	switch base := filepath.Base(root); {
	case f.guestPath != "":
		return f.guestPath
	case !banger.IsRoot(user):
		return path.Join("/workspaces", base)
	case several:
		return path.Join("/root", base)
	}
	return "/root/repo"
}

// place decides anew where plans go, for what runs as user.
func (f *planFlags) place(plans []planned, user string) {
	for i := range plans {
		plans[i].dest = f.dest(plans[i].Repo.Root, user, len(plans) > 1)
	}
}

// showPlans tells what would go in.
func (a *app) showPlans(plans []planned, w *wish) error {
	list := []repoPlan{}
	for _, p := range plans {
		branch := p.Repo.Branch
		if p.Options.Branch != "" {
			branch = p.Options.Branch
		}
		list = append(list, repoPlan{p.Repo.Root, p.dest, p.Start, branch, append([]string{}, p.Files()...), append([]string{}, p.Notices...), nil, nil})
		if last := &list[len(list)-1]; !p.tools.Empty() || len(p.tools.Notices) > 0 {
			last.Tooling = &p.tools
		}
	}
	if w != nil && len(list) > 0 {
		list[0].Project = w.shown()
	}
	if a.json {
		return a.printJSON(list)
	}
	for _, s := range list {
		for _, name := range s.Files {
			fmt.Fprintln(a.Out, escape(name))
		}
		a.notice("%d files of %s would go to %s (branch %s, commit %.12s)", len(s.Files), s.Host, s.Guest, or(s.Branch, "-"), or(s.Head, "-"))
		for _, notice := range s.Notices {
			a.notice("%s", notice)
		}
		if s.Tooling != nil {
			if !s.Tooling.Empty() {
				a.notice("in the VM would be installed: %s", toolText(*s.Tooling))
			}
			for _, notice := range s.Tooling.Notices {
				a.notice("%s", notice)
			}
		}
		s.Project.tell(a)
	}
	return nil
}

// prepare sends repositories into a running VM and has host and daemon remember them. force lets them come over work that is in the VM,
// once that is saved.
func (a *app) prepare(ctx context.Context, vm api.VMDetail, plans []planned, force bool) error {
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // what is known of every file lives until the end: less garbage beside it
	for _, p := range plans {
		for _, notice := range p.Notices {
			a.notice("%s", notice)
		}
		done, err := a.prepareAgain(ctx, vm, p, force)
		if err == nil && !done {
			err = a.prepareOne(ctx, vm, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) prepareOne(ctx context.Context, vm api.VMDetail, p planned) error {
	show, end := a.progress()
	defer end()
	done := show.Begin("workspace", "packing "+p.Repo.Root)
	ship, err := p.Prepare(ctx, nil)
	if err != nil {
		return err
	}
	defer ship.Close()
	keep := func(record workspace.Record) error { return a.setWorkspace(ctx, vm, record) }
	record, err := ship.Send(ctx, a.guest(vm), p.dest, keep, sizes(show, "workspace", "sending "+p.Repo.Root))
	if err != nil {
		return err
	}
	if err := keep(record); err != nil {
		return err
	}
	done()
	return nil
}

// setWorkspace has host and daemon remember what is in a VM.
func (a *app) setWorkspace(ctx context.Context, vm api.VMDetail, record workspace.Record) error {
	if err := record.Write(statedir.VMDir{Path: vm.Dir}.Workspace(record.GuestPath)); err != nil {
		return err
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.SetWorkspace(ctx, string(vm.ID), record.Workspace)
	return err
}

// sizes reports bytes that went by as progress of a stage.
func sizes(show banger.ProgressFunc, stage, text string) func(int64) {
	var total int64
	return func(n int64) {
		total += n
		show.Report(banger.Progress{Stage: stage, Text: text, Bytes: total})
	}
}

// guest reaches the files of a running VM.
func (a *app) guest(vm api.VMDetail) workspace.Guest {
	return workspace.Guest{
		Ask: func(ctx context.Context, req transfer.Request, names []string) (io.ReadCloser, error) {
			conn, err := a.files(ctx, vm)
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			if err := transfer.WriteRequest(conn, req, names); err != nil {
				conn.Close()
				return nil, err
			}
			return conn, nil
		},
		Bring: func(ctx context.Context, put transfer.Put, src tree.Source) error {
			conn, err := a.files(ctx, vm)
			if err == nil {
				_, err = transfer.Bring(ctx, conn, put, src)
			}
			return err
		},
		Change: func(ctx context.Context, change transfer.Change, steps []transfer.Step, src tree.Source) error {
			conn, err := a.files(ctx, vm)
			if err == nil {
				_, err = transfer.AskChange(ctx, conn, change, steps, src)
			}
			return err
		},
	}
}

// guestOf reaches the files of a VM, whether it runs or not.
func (a *app) guestOf(c *client.Client, vm api.VMDetail) (workspace.Guest, error) {
	running, err := runs(vm)
	if err != nil || running {
		return a.guest(vm), err
	}
	return workspace.Guest{Ask: func(ctx context.Context, req transfer.Request, names []string) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(transfer.WriteRequest(w, req, names)) }()
		answer, err := c.ReadParts(ctx, string(vm.ID), r)
		if err != nil {
			r.Close()
		}
		return answer, err
	}}, nil
}

// workspaceOf gives a VM's workspace: the one at guestPath, or the only one.
func workspaceOf(vm api.VMDetail, guestPath string) (banger.Workspace, error) {
	var paths []string
	for _, ws := range vm.Workspaces {
		if ws.GuestPath == guestPath || guestPath == "" && len(vm.Workspaces) == 1 {
			return ws, nil
		}
		paths = append(paths, ws.GuestPath)
	}
	name := vm.Spec.Name
	switch {
	case len(paths) == 0:
		return banger.Workspace{}, &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: name, Err: fmt.Errorf("no repository has been put in"), Hint: "banger workspace prepare " + name + " PATH"}
	case guestPath == "":
		return banger.Workspace{}, &banger.Error{Kind: banger.ErrInvalid, Op: "vm", Subject: name, Err: fmt.Errorf("it has %d repositories", len(paths)), Hint: "--guest-path " + strings.Join(paths, " or ")}
	}
	return banger.Workspace{}, &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: name, Err: fmt.Errorf("no repository was put into %s", guestPath), Hint: "--guest-path " + strings.Join(paths, " or ")}
}

// repoPlan is what would go into a VM of one repository.
type repoPlan struct {
	Host    string   `json:"host_path"`  // root of the repository or directory
	Guest   string   `json:"guest_path"` // where it would go in the VM
	Head    string   `json:"head"`       // object id of the commit that the VM would begin with; "": none
	Branch  string   `json:"branch"`     // that the VM would have checked out; "": none
	Files   []string `json:"files"`      // below the root, sorted, with those of submodules
	Notices []string `json:"notices"`    // for people: what would stay here, and why

	Tooling *tooling.Plan `json:"tooling,omitempty"` // what would be installed
	Project *wished       `json:"project,omitempty"` // of the first: what its files say
}
