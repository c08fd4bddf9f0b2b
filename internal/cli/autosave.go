package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
	"banger/internal/workspace"
)

func (a *app) autosaveGroup() *cobra.Command {
	return a.group("autosave", "the work of deleted VMs", `
When a VM is deleted, the work on its repositories that the host does not have is kept: in a bundle, and as refs/banger/VM/ID/TIME/… in the
repository that it is of: head, branches, worktree (for "git stash apply"), untracked, stash.`, `
  banger autosave list
  banger autosave restore devbox-0123456789ab       into the repository that it came from
  banger autosave restore devbox-0123456789ab --into ~/src/app
  banger autosave prune                             what is older than 30 days`,
		a.autosaveList(), a.autosaveRestore(), a.autosavePrune())
}

// landWork puts kept work into the repositories that it is of, those that are there. What can't be put there stays in its bundle.
func (a *app) landWork(ctx context.Context, c *client.Client) {
	list, err := c.Autosaves(ctx)
	if err != nil {
		return // of no concern to who asked for something else
	}
	for _, save := range list {
		if !save.Pending {
			continue
		}
		if _, err := os.Stat(save.HostPath); err != nil {
			continue
		}
		if err := a.land(ctx, c, save, save.HostPath); err != nil {
			a.notice("work of vm %s is in %s: %v", save.VM, save.Bundle, err)
		}
	}
}

func (a *app) land(ctx context.Context, c *client.Client, save banger.Autosave, repo string) error {
	if err := workspace.Restore(ctx, save, repo); err != nil {
		return err
	}
	if _, err := c.AutosaveLanded(ctx, save.ID); err != nil {
		return err
	}
	a.notice("work of vm %s is in %s: git for-each-ref refs/banger/%s/%s", save.VM, repo, save.VM, save.VMID)
	if id := save.Refs[refNamed(save.Refs, "/worktree")]; id != "" {
		a.notice("what was not committed: git stash apply %.12s", id)
	}
	return nil
}

func (a *app) autosaveList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "list the work of deleted VMs", Args: noArgs, Example: "  banger autosave list\n  banger autosave list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.Autosaves(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case a.json:
				return a.printJSON(list)
			case a.quiet:
				for _, save := range list {
					fmt.Fprintln(a.Out, save.ID)
				}
				return nil
			case len(list) == 0:
				a.notice("no work of deleted VMs")
			}
			rows := [][]string{{"ID", "VM", "REPOSITORY", "IN IT", "SIZE", "SAVED"}}
			for _, save := range list {
				there := "yes"
				if save.Pending {
					there = "no"
				}
				rows = append(rows, []string{save.ID, save.VM, save.HostPath, there, banger.FormatSize(save.Bytes), ago(a.now(), save.At)})
			}
			return table(a.Out, rows)
		},
	}
}

func (a *app) completeSaves(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := a.dialExisting(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	list, _ := c.Autosaves(cmd.Context())
	var ids []cobra.Completion
	for _, save := range list {
		ids = append(ids, save.ID)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) autosaveRestore() *cobra.Command {
	var into string
	cmd := &cobra.Command{
		Use: "restore [flags] ID", Short: "put kept work into a repository, as refs", ValidArgsFunction: a.completeSaves,
		Long:    "The refs begin with refs/banger/; branches, index and files of the repository stay as they are.",
		Example: "  banger autosave restore devbox-0123456789ab\n  banger autosave restore devbox-0123456789ab --into ~/src/app",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want the id of an autosave, got %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.Autosaves(cmd.Context())
			if err != nil {
				return err
			}
			save, err := workspace.FindSave(list, args[0])
			if err != nil {
				return err
			}
			repo := or(into, save.HostPath)
			if _, err := os.Stat(repo); err != nil {
				return &banger.Error{Kind: banger.ErrNotFound, Op: "repository", Subject: repo, Err: errors.New("it is not there"), Hint: "--into another clone of it"}
			}
			if err := a.land(cmd.Context(), c, save, repo); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(save)
			}
			return a.printRefs(save.Refs)
		},
	}
	cmd.Flags().StringVar(&into, "into", "", "the `repository` (default: the one that the work came from)")
	_ = cmd.MarkFlagDirname("into")
	return cmd
}

func (a *app) autosavePrune() *cobra.Command {
	var req api.PruneSavesRequest
	cmd := &cobra.Command{
		Use: "prune [flags]", Short: "remove old work of deleted VMs", Args: noArgs,
		Long:    "What is older than 30 days goes, but never the last of a VM, nor what is in no repository yet.",
		Example: "  banger autosave prune --dry-run\n  banger autosave prune --older-than 168h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("older-than") && req.Age <= 0 {
				return banger.Invalidf("--older-than %s: want a time such as 168h", req.Age)
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			removed, err := c.PruneAutosaves(cmd.Context(), req)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(removed)
			}
			for _, save := range removed {
				fmt.Fprintln(a.Out, escape(save.ID))
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&req.Age, "older-than", workspace.SavesKept, "what is `older`")
	cmd.Flags().BoolVar(&req.All, "all", false, "also what is in no repository yet")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "only tell what would go")
	_ = cmd.RegisterFlagCompletionFunc("older-than", cobra.NoFileCompletions)
	return cmd
}
