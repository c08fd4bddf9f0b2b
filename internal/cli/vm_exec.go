package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

func (a *app) vmExec() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use: "exec [flags] VM -- command [args...]", Short: "run a command in a VM",
		Long: `The command gets exactly the arguments given: no shell is in between. Its standard input, output and error are ours and
its exit status becomes ours; 125 means that banger itself failed.`,
		Example: `  banger vm exec devbox -- git --version
  banger vm exec --workdir /tmp --env CI=1 devbox -- env
  tar c . | banger vm exec devbox -- tar x -C /root
  banger vm exec devbox -- sh -c 'cd /tmp && ls'     a shell, if you want one`,
		Args:              oneVMAndCommand,
		ValidArgsFunction: a.completeVMs(1, banger.StateRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			argv, err := command(cmd, args)
			if err != nil {
				return err
			}
			if argv == nil {
				return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("vm exec: no command given"), Hint: "for a shell: banger vm shell " + args[0]}
			}
			return a.execIn(cmd.Context(), args[0], argv, flags)
		},
	}
	flags.add(cmd)
	return cmd
}

// execIn runs argv, or a shell, in the running VM ref.
func (a *app) execIn(ctx context.Context, ref string, argv []string, flags execFlags) error {
	env, err := flags.environment(os.LookupEnv)
	if err != nil {
		return err
	}
	detail, err := a.show(ctx, ref)
	if err != nil {
		return streamError{err}
	}
	name := detail.Spec.Name
	if detail.State != banger.StateRunning {
		return streamError{notRunning(name, detail.State)}
	}
	if err := a.awaitInit(ctx, detail, flags.wait); err != nil {
		return err
	}
	err = a.attach(ctx, detail, banger.ExecRequest{Argv: argv, Env: env, Dir: flags.workdir, HomeDir: workDir(detail), User: flags.user})
	if argv == nil {
		a.remind(detail)
	}
	return err
}

func notRunning(name string, state banger.VMState) error {
	hint := "banger vm start " + name
	if state != banger.StateStopped && state != banger.StateError {
		hint = "it changes right now; look again: banger vm show " + name
	}
	return &banger.Error{Kind: banger.ErrConflict, Op: "vm", Subject: name, Err: fmt.Errorf("it is %s", state), Hint: hint}
}

// workDir is where commands run in a VM that repositories were put into: in the first of them.
func workDir(vm api.VMDetail) string {
	if len(vm.Workspaces) == 0 {
		return ""
	}
	return vm.Workspaces[0].GuestPath
}
