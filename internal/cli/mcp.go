package cli

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/mcp"
)

// mcpFlags say what agents may have.
type mcpFlags struct {
	paths  []string
	vms    []string
	images []string
	net    netPolicy
	remove bool
}

func (a *app) mcpCommand() *cobra.Command {
	var flags mcpFlags
	cmd := &cobra.Command{
		Use: "mcp [flags]", Short: "let a coding agent use banger: a server of the Model Context Protocol", Args: noArgs,
		Long: `It speaks the protocol on standard input and output; programs that run agents start it. Their configuration mostly wants

  {"mcpServers": {"banger": {"command": "banger", "args": ["mcp"]}}}

The tools make and use VMs: create, start, stop, delete, run commands, read and write files, ports, network, and repositories, which go in
and whose work comes back as refs/banger/…; docs/agents.md lists them. An agent may be misled by what it reads. So it gets no more than
this: VMs that agents have made; repositories below the directory where this was started; images of public registries; the network that
every VM has by default. What a repository asks for beyond that, only you can allow: "banger allow".

Its VMs stay when it ends, unless --rm was given. Standard error has its log.`,
		Example: `  banger mcp                                          for repositories below this directory
  banger mcp --allow-path ~/src --allow-path ~/work
  banger mcp --net allow=github.com,*.pypi.org        and no VM reaches more than that
  banger mcp --allow-vm devbox --allow-image mine     a VM and an image of yours
  banger mcp --rm                                     its VMs are deleted when it ends, their work is kept`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			paths, err := allowedPaths(flags.paths, a.notice)
			if err != nil {
				return err
			}
			if a.interactive() {
				a.notice("this is for programs that run agents: docs/agents.md (Ctrl-D ends it)")
			}
			level := slog.LevelWarn
			if a.verbose {
				level = slog.LevelInfo
			}
			return mcp.New(mcp.Config{
				Commands: a.commands, Version: a.build.Version, Log: slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: level})),
				Paths: paths, VMs: flags.vms, Images: flags.images, Net: banger.NetPolicy(flags.net), Remove: flags.remove,
			}).Run(cmd.Context(), a.In, a.Out)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&flags.paths, "allow-path", nil, "`directory` whose repositories may go into VMs and get work back (repeatable; default: this one)")
	f.StringArrayVar(&flags.vms, "allow-vm", nil, "`name` of a VM of yours that may be used (repeatable)")
	f.StringArrayVar(&flags.images, "allow-image", nil, "`image` of yours, or of a private registry, that may be used (repeatable)")
	f.Var(&flags.net, "net", "the most that a VM's network may reach (default: as configured for every VM)")
	f.BoolVar(&flags.remove, "rm", false, "delete the VMs that it has made when it ends")
	_ = cmd.MarkFlagDirname("allow-path")
	_ = cmd.RegisterFlagCompletionFunc("allow-vm", a.completeVMs(0))
	_ = cmd.RegisterFlagCompletionFunc("allow-image", a.completeImages)
	_ = cmd.RegisterFlagCompletionFunc("net", cobra.FixedCompletions([]cobra.Completion{"full", "none", "allow="}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return cmd
}

// allowedPaths resolves directories. Without any it is the one that we are in, unless that has the user's home in it: programs start
// servers there without anybody having chosen it.
func allowedPaths(list []string, notice func(string, ...any)) ([]string, error) {
	if len(list) == 0 {
		here, err := os.Getwd()
		if err != nil {
			return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "mcp", Err: err, Hint: "--allow-path DIRECTORY"}
		}
		if here, err = filepath.EvalSymlinks(here); err != nil {
			return nil, err
		}
		home, err := os.UserHomeDir()
		if err == nil {
			home, err = filepath.EvalSymlinks(home)
		}
		if rel, relErr := filepath.Rel(here, home); here == "/" || err == nil && relErr == nil && filepath.IsLocal(rel) {
			notice("no repository can be used: this was started in %s (--allow-path names directories that have some)", here)
			return nil, nil
		}
		return []string{here}, nil
	}
	var paths []string
	for _, name := range list {
		real, err := filepath.Abs(name)
		if err == nil {
			real, err = filepath.EvalSymlinks(real)
		}
		var info os.FileInfo
		if err == nil {
			info, err = os.Stat(real)
		}
		if err != nil || !info.IsDir() {
			return nil, &banger.Error{Kind: banger.ErrInvalid, Op: "mcp", Err: &os.PathError{Op: "--allow-path", Path: name, Err: os.ErrNotExist}, Hint: "name a directory"}
		}
		paths = append(paths, real)
	}
	return paths, nil
}
