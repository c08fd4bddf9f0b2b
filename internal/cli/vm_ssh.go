package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/internal/config"
	"banger/internal/proc"
	"banger/internal/statedir"
)

// hostSuffix makes a VM's name a host name.
const hostSuffix = ".vm"

type sshFlags struct {
	agent   bool
	tty     bool
	none    bool
	local   []string
	remote  []string
	dynamic []string
	user    string
	start   bool
	wait    waitFor
}

func (a *app) vmSSH() *cobra.Command {
	flags := sshFlags{wait: waitForSystem}
	cmd := &cobra.Command{
		Use: "ssh [flags] VM [-- command [args...]]", Short: "ssh into a VM", Args: oneVMAndCommand,
		Long: `Runs OpenSSH's own ssh, with the keys of this VM alone. Nothing is taken on trust: the VM's host key is known from its making, and
another one is refused. Your key agent stays here unless -A lends it, for this session. Where there is no ssh, a shell or a
command runs as with "vm exec".

For "ssh devbox.vm", scp, sftp, rsync, git and editors: banger ssh-config --install`,
		Example: `  banger vm ssh devbox
  banger vm ssh devbox -- make test
  banger vm ssh -A devbox -- git fetch
  banger vm ssh -L 8080:localhost:80 devbox`,
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			argv, err := command(cmd, args)
			if err != nil {
				return err
			}
			return a.sshInto(cmd.Context(), args[0], argv, flags)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.agent, "agent", "A", false, "lend your key agent to the VM for this session")
	f.StringArrayVarP(&flags.local, "local", "L", nil, "forward a port here to the VM: `[address:]port:host:port` (repeatable)")
	f.StringArrayVarP(&flags.remote, "remote", "R", nil, "forward a port in the VM to here: `[address:]port:host:port` (repeatable)")
	f.StringArrayVarP(&flags.dynamic, "dynamic", "D", nil, "a SOCKS proxy here whose connections the VM makes: `[address:]port` (repeatable)")
	f.BoolVarP(&flags.none, "no-command", "N", false, "forward only, run nothing")
	f.BoolVarP(&flags.tty, "tty", "t", false, "a terminal for the command too")
	f.StringVarP(&flags.user, "user", "l", "", "`user` in the VM (default: the VM's)")
	f.BoolVar(&flags.start, "start", false, "start the VM if it is stopped")
	f.Var(&flags.wait, "wait", "`what` to wait for: system, the image's own init, at most 30 s; or agent")
	for _, name := range []string{"local", "remote", "dynamic", "user"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = cmd.RegisterFlagCompletionFunc("wait", cobra.FixedCompletions([]cobra.Completion{string(waitForSystem), string(waitForAgent)}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// oneVMAndCommand checks what stands before the command.
func oneVMAndCommand(cmd *cobra.Command, args []string) error {
	if cmd.ArgsLenAtDash() < 0 && len(args) > 1 {
		return inputError(cmd, "put -- before the command")
	}
	return oneVM(cmd, beforeDash(cmd, args))
}

// sshInto runs ssh for a command, or for a shell when argv is nil.
func (a *app) sshInto(ctx context.Context, ref string, argv []string, flags sshFlags) error {
	vm, err := a.reach(ctx, ref, flags.start)
	if err != nil {
		return streamError{err}
	}
	if _, err := proc.LookPath("ssh"); err != nil {
		return a.withoutSSH(ctx, vm, argv, flags)
	}
	if err := a.awaitInit(ctx, vm, flags.wait); err != nil {
		return err
	}
	dir, err := statedir.Locate()
	if err != nil {
		return streamError{err}
	}
	// A signal that the terminal sends reaches ssh too, which knows what to do.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer a.signals.redirect(func(sig os.Signal) {
		if sig != syscall.SIGINT {
			cancel(errSignal)
		}
	})()
	err = proc.Run(ctx, proc.Command{Path: "ssh", Args: flags.arguments(dir.SSHConfig(), vm.Spec.Name, argv), Stdin: a.In, Stdout: a.Out, Stderr: a.Err, Foreground: true})
	if argv == nil {
		a.remind(vm)
	}
	if exit, ok := errors.AsType[*proc.ExitError](err); ok {
		if exit.Signal != 0 {
			return commandExit{status: 128 + int(exit.Signal)}
		}
		return commandExit{status: exit.Status}
	}
	if err != nil && !errors.Is(err, banger.ErrInterrupted) {
		return streamError{err}
	}
	return err
}

// arguments are ssh's own.
func (f sshFlags) arguments(config, name string, argv []string) []string {
	args := []string{"-F", config}
	for _, flag := range []struct {
		on     bool
		letter string
	}{{f.agent, "-A"}, {f.tty, "-t"}, {f.none, "-N"}} {
		if flag.on {
			args = append(args, flag.letter)
		}
	}
	for _, flag := range []struct {
		letter string
		values []string
	}{{"-L", f.local}, {"-R", f.remote}, {"-D", f.dynamic}} {
		for _, value := range flag.values {
			args = append(args, flag.letter, value)
		}
	}
	if f.user != "" {
		args = append(args, "-l", f.user)
	}
	args = append(args, "--", name+hostSuffix)
	for _, word := range argv {
		args = append(args, shellWord(word)) // ssh joins them with blanks for the user's shell
	}
	return args
}

// shellWord writes one word for a POSIX shell.
func shellWord(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,"
	if word != "" && strings.Trim(word, plain) == "" && word[0] != '-' && word[0] != '=' {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// withoutSSH is the way in on a host that has no ssh.
func (a *app) withoutSSH(ctx context.Context, vm api.VMDetail, argv []string, flags sshFlags) error {
	if flags.agent || flags.none || flags.local != nil || flags.remote != nil || flags.dynamic != nil {
		return streamError{&banger.Error{Kind: banger.ErrUnavailable, Op: "vm ssh", Err: errors.New("-A, -N, -L, -R and -D need OpenSSH's client, and there is no ssh here"),
			Hint: "install it: apt install openssh-client, dnf install openssh-clients, pacman -S openssh"}}
	}
	if err := a.awaitInit(ctx, vm, flags.wait); err != nil {
		return err
	}
	a.notice("no ssh here: going in by banger's own way")
	err := a.attach(ctx, vm, banger.ExecRequest{Argv: argv, User: flags.user})
	if argv == nil {
		a.remind(vm)
	}
	return err
}

// reach gives a VM that runs: it is started, when that is wanted, or else it is said how to. When a command that its repository wants run
// then fails, that is told, and the way into the VM is open all the same.
func (a *app) reach(ctx context.Context, ref string, start bool) (api.VMDetail, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return api.VMDetail{}, err
	}
	defer c.Close()
	vm, err := c.ShowVM(ctx, ref)
	if err != nil || vm.State == banger.StateRunning {
		return vm, err
	}
	if !start {
		cfg, err := config.Load()
		if err != nil {
			return vm, err
		}
		start = cfg.SSH.Start
	}
	if !start {
		return vm, notRunning(vm.Spec.Name, vm.State)
	}
	show, end := a.progress()
	vm, err = c.StartVM(ctx, string(vm.ID), api.StartRequest{}, show)
	end()
	if err != nil {
		return vm, err
	}
	if err := a.started(ctx, vm); errors.Is(err, banger.ErrInterrupted) {
		return vm, err
	} else if err != nil {
		a.showError(err)
	}
	return vm, nil
}

func sshTarget(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return inputError(cmd, "want the name of one VM, got %d arguments", len(args))
	}
	if args[0] == "" || args[0] == hostSuffix {
		return inputError(cmd, "%q is no VM", args[0])
	}
	return nil
}

// vmOfHost gives the VM that a host name stands for.
func vmOfHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), hostSuffix) }
