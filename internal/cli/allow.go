package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/project"
	"banger/internal/statedir"
	"banger/internal/workspace"
)

type allowFlags struct {
	project      projectFlags
	accept       string
	list, revoke bool
}

// asked is what "banger allow --json" tells.
type asked struct {
	Path    string         `json:"path"`    // root of the repository
	Files   []project.File `json:"files"`   // that were read; empty: there is none
	Needs   []project.Need `json:"needs"`   // all that these files ask for; empty: nothing needs consent
	Digest  string         `json:"digest"`  // for --accept
	Allowed bool           `json:"allowed"` // every need is allowed
}

func (a *app) allow() *cobra.Command {
	var flags allowFlags
	cmd := &cobra.Command{
		Use: "allow [flags] [PATH]", Short: "let a repository have what it asks for",
		Long: `What a repository asks for in its .banger.toml and devcontainer.json goes beyond what every VM may have when it is about your
environment, files and ports of this computer, its network, or a large part of it. Nothing of that is done before you have seen it and
said yes. Your yes counts for this directory and for these files as they are: any change in them asks again.

Without a terminal nobody can say yes: --accept takes the digest that --json shows, and counts only while the question is the same.`,
		Example: `  banger allow                                 the repository that you are in
  banger allow ./repo
  banger allow --list                          what is allowed
  banger allow --revoke ./repo                 ask again
  banger allow ./repo --accept DIGEST          exactly what "banger allow ./repo --json" has shown`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if flags.list && (flags.revoke || flags.accept != "" || len(args) > 0) || flags.revoke && flags.accept != "" {
				return inputError(cmd, "--list, --revoke and --accept exclude each other, and --list is about all repositories")
			}
			dir, err := statedir.Locate()
			if err != nil {
				return err
			}
			where := "."
			if len(args) > 0 {
				where = args[0]
			}
			switch consents := (project.Consents{Dir: dir}); {
			case flags.list:
				return a.listAllowed(consents)
			case flags.revoke:
				return a.revoke(cmd.Context(), consents, where)
			}
			return a.allowOne(cmd.Context(), where, flags)
		},
	}
	cmd.Flags().BoolVar(&flags.list, "list", false, "show what is allowed")
	cmd.Flags().BoolVar(&flags.revoke, "revoke", false, "forget all that the repository was allowed")
	cmd.Flags().StringVar(&flags.accept, "accept", "", "say yes to the question with this `digest`")
	flags.project.add(cmd)
	_ = cmd.RegisterFlagCompletionFunc("accept", cobra.NoFileCompletions)
	return cmd
}

func (a *app) allowOne(ctx context.Context, where string, flags allowFlags) error {
	repo, err := workspace.Inspect(ctx, where)
	if err != nil {
		return err
	}
	w := &wish{}
	if w.Project, err = flags.project.load(repo.Root); err != nil {
		return err
	}
	for _, notice := range w.Notices {
		a.notice("%s", notice)
	}
	if len(w.Files) > 0 {
		if err := a.weigh(ctx, w); err != nil {
			return err
		}
	}
	digest := project.Digest(w.Project, w.needs)
	switch {
	case len(w.missing) == 0:
		a.notice("%s asks for nothing that is not allowed", w.Root)
	case flags.accept == digest:
		if err := a.allowNow(w); err != nil {
			return err
		}
	case flags.accept != "":
		return &banger.Error{Kind: banger.ErrConflict, Op: "allow", Subject: w.Root, Err: errors.New("the question is not the one with that digest"), Hint: "look at it again: banger allow --json " + w.Root}
	case !a.json:
		if err := a.consent(ctx, w, "allow"); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(asked{Path: w.Root, Files: append([]project.File{}, w.Files...), Needs: append([]project.Need{}, w.needs...), Digest: digest, Allowed: len(w.missing) == 0})
	}
	return nil
}

// allowNow has what is missing allowed from now on.
func (a *app) allowNow(w *wish) error {
	dir, err := statedir.Locate()
	if err != nil {
		return err
	}
	if err := (project.Consents{Dir: dir}).Allow(w.Project, w.needs, a.now()); err != nil {
		return err
	}
	w.missing = nil
	return nil
}

// consent shows what is missing, value by value, and asks. It is never given by itself: without a terminal it is refused.
func (a *app) consent(ctx context.Context, w *wish, op string) error {
	refused := &banger.Error{Kind: banger.ErrRefused, Op: op, Subject: w.Root}
	_, in := terminal(a.In)
	_, out := terminal(a.Err)
	if !in || !out || a.json {
		text := "the repository asks for what you have not allowed:"
		for _, need := range w.missing {
			text += "\n  " + escape(need.String()) + " (" + escape(need.File) + ")"
		}
		refused.Err, refused.Hint = errors.New(text), "look at it and say yes: banger allow "+w.Root+"; to go without its files: --no-project"
		return refused
	}
	fmt.Fprintf(a.Err, "%s asks for more than every VM may have:\n", escape(w.Root))
	for _, need := range w.missing {
		fmt.Fprintf(a.Err, "  %s  (%s)\n", escape(need.String()), escape(need.File))
	}
	yes, err := a.confirm(ctx, fmt.Sprintf("Allow this (%d), for the files as they are now?", len(w.missing)))
	if err != nil {
		return err
	}
	if !yes {
		refused.Err, refused.Hint = errors.New("you have not allowed what the repository asks for: nothing is made"), "to go without its files: --no-project"
		return refused
	}
	return a.allowNow(w)
}

func (a *app) listAllowed(consents project.Consents) error {
	list, err := consents.List()
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(list)
	}
	rows := [][]string{{"REPOSITORY", "FILE", "ALLOWED", "SINCE"}}
	for _, consent := range list {
		for _, grant := range consent.Grants {
			for _, need := range grant.Needs {
				rows = append(rows, []string{consent.Path, need.File, need.String(), ago(a.now(), grant.At)})
			}
		}
	}
	return table(a.Out, rows)
}

// revoke also works for a repository that is gone.
func (a *app) revoke(ctx context.Context, consents project.Consents, where string) error {
	root, err := filepath.Abs(where)
	if err != nil {
		return err
	}
	if repo, err := workspace.Inspect(ctx, where); err == nil {
		root = repo.Root
	}
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real
	}
	if err := consents.Revoke(root); err != nil {
		return err
	}
	a.notice("%s is allowed nothing any more", root)
	return nil
}
