package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

func (a *app) workspacePrepare() *cobra.Command {
	var flags planFlags
	var force bool
	cmd := &cobra.Command{
		Use: "prepare [flags] VM [PATH]", Short: "put a repository into a running VM",
		Long: `The repository that PATH lies in (default: where you are) goes in as a clone with its last commits, with the files of the work
tree as they are: tracked ones; untracked ones if asked for; ignored ones never unless named. No hooks, no credentials and no
settings but your name travel. The VM needs no git for it. Of a directory that is in no repository all files go in.

Again, it brings what has changed here since: the commits and files that the VM lacks. Files that have changed only there stay; when
commits or files there would be lost, they are listed and nothing is done.`,
		Example: `  banger workspace prepare devbox
  banger workspace prepare devbox ~/src/app --branch fix-login
  banger workspace prepare --dry-run devbox --include-ignored 'node_modules'
  banger workspace prepare --force devbox        over work there, which is saved as refs/banger/… here first`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return inputError(cmd, "want the name of a VM, and at most one path")
			}
			return nil
		},
		ValidArgsFunction: a.completeVMs(1, banger.StateRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			paths := []string{"."}
			if len(args) == 2 {
				paths = args[1:]
			}
			ctx := cmd.Context()
			if flags.dryRun {
				plans, err := flags.plan(ctx, paths, "")
				if err != nil {
					return err
				}
				return a.showPlans(plans, nil)
			}
			vm, plans, err := a.prepareIn(ctx, args[0], paths, flags, force)
			if err != nil {
				return err
			}
			if a.json {
				vm, err := a.show(ctx, string(vm.ID))
				if err != nil {
					return err
				}
				return a.printJSON(vm.Workspaces)
			}
			for _, p := range plans {
				a.notice("%s is in %s:%s", p.Repo.Root, vm.Spec.Name, p.dest)
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "save work in the VM that would be lost, as workspace pull does, and go on")
	return cmd
}

// prepareIn puts repositories into the running VM ref.
func (a *app) prepareIn(ctx context.Context, ref string, paths []string, flags planFlags, force bool) (api.VMDetail, []planned, error) {
	vm, err := a.show(ctx, ref)
	if err != nil {
		return vm, nil, err
	}
	plans, err := flags.plan(ctx, paths, vm.User)
	if err != nil {
		return vm, nil, err
	}
	if vm.State != banger.StateRunning {
		return vm, nil, notRunning(vm.Spec.Name, vm.State)
	}
	fresh := slices.DeleteFunc(slices.Clone(plans), func(p planned) bool {
		return slices.ContainsFunc(vm.Workspaces, func(ws banger.Workspace) bool { return ws.GuestPath == p.dest })
	})
	for _, notice := range ignored(fresh, false, "the VM is there already; for one that follows it: banger vm run PATH") {
		a.notice("%s", notice)
	}
	return vm, plans, a.prepare(ctx, vm, plans, force)
}
