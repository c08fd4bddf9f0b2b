package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

// removeTimeout bounds how long a client waits for the deletion that --rm promises; the daemon carries on with it.
const removeTimeout = time.Minute

type runFlags struct {
	spec       specFlags
	req        api.CreateRequest // what spec says
	exec       execFlags
	plan       planFlags
	project    projectFlags
	remove     bool
	ociCmd     bool
	overcommit bool
	timings    bool
	detach     bool

	noBootstrap bool
}

func (a *app) vmRun() *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use: "run [flags] [PATH...] [-- command [args...]]", Short: "make a VM, start it, and run a shell or a command in it",
		Long: `Without a command you get a login shell. The VM goes on when you leave, unless --rm was given: then it is deleted with its disk,
whatever ends this client. The first run also builds the image and fetches the kernel; that takes a minute or two.

With a PATH the repository that it lies in goes in too, as a clone with the edits of the work tree (a directory that lies in none:
all its files), and the shell or command runs there. The work comes back with "banger workspace pull". What the repository says in
.banger.toml and devcontainer.json is followed; what of that reaches beyond the VM waits for your consent: see "banger allow
--help". For a shell, and with --detach, mise installs in the VM the tools that the repository pins; --dry-run tells which.

A command gets exactly the arguments given: no shell is in between. Its standard input, output and error are ours and its exit
status becomes ours; 125 means that banger itself failed.

With --detach the VM is made and started without this client, and goes on; nothing is run in it. With a PATH this client stays until
all is in, and prints the VM's name.`,
		Example: `  banger vm run                                    a shell in a new VM
  banger vm run ./repo                             the same with a repository
  banger vm run ./repo --branch fix -- make test   on a new branch there
  banger vm run --dry-run ./repo                   what would go in, and what it asks for
  banger vm run --rm -- uname -a                   one command, then the VM is gone
  banger vm run --name devbox --memory 4G          a VM to come back to: banger vm shell devbox
  echo hi | banger vm run --rm -- tr a-z A-Z       in a pipe
  banger vm run --rm --image web --oci-cmd         what the image itself runs
  banger vm run -d --name devbox                   make and start it in the background: banger ops wait`,
		Args: func(cmd *cobra.Command, args []string) error {
			return repositories(cmd, beforeDash(cmd, args))
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			argv, err := command(cmd, args)
			if err == nil && flags.detach {
				err = withoutClient(cmd, argv)
			}
			if err != nil {
				return err
			}
			if flags.req, err = flags.spec.request(); err != nil {
				return err
			}
			return a.run(cmd.Context(), beforeDash(cmd, args), argv, flags)
		},
	}
	flags.spec.add(a, cmd)
	cmd.Flags().BoolVar(&flags.remove, "rm", false, "delete the VM when this client ends")
	cmd.Flags().BoolVar(&flags.ociCmd, "oci-cmd", false, "run the image's own command, with what follows -- as its arguments")
	flags.plan.add(cmd)
	flags.project.add(cmd)
	flags.project.addNone(cmd)
	cmd.Flags().BoolVar(&flags.noBootstrap, "no-bootstrap", false, "install none of the tools that the repository wants")
	flags.exec.add(cmd)
	addDetach(cmd, &flags.detach)
	addOvercommit(cmd, &flags.overcommit)
	addTimings(cmd, &flags.timings)
	return cmd
}

// imageLike matches what registries call an image, as far as it is no path: with a tag, a digest or a registry.
var imageLike = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9._-]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]+)?$`)

// noPositional refuses arguments that are no flags, and tells what may have been meant.
func noPositional(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	arg := args[0]
	_, err := os.Lstat(arg)
	image, hint := "for an image: "+cmd.CommandPath()+" --image "+arg, ""
	what := fmt.Sprintf("there is no argument before --, got %q", arg)
	if cmd.Name() == "run" {
		what = fmt.Sprintf("there is no file or directory %q", arg)
	}
	switch named := err != nil && imageLike.MatchString(arg); {
	case named && strings.ContainsAny(arg, ":/@"):
		hint = image
	case cmd.Name() != "run":
		hint = "usage: " + cmd.UseLine()
	default:
		hint = "for a command: banger vm run -- " + strings.Join(args, " ")
		if named {
			hint += "; " + image
		}
	}
	return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("%s: %s", strings.TrimPrefix(cmd.CommandPath(), "banger "), what), Hint: hint}
}

// repositories checks that arguments are paths, and tells what else may have been meant.
func repositories(cmd *cobra.Command, args []string) error {
	for _, arg := range args {
		if _, err := os.Lstat(arg); err != nil {
			return noPositional(cmd, []string{arg})
		}
	}
	return nil
}

func (a *app) run(ctx context.Context, paths, argv []string, flags runFlags) error {
	detail, req, err := a.make(ctx, paths, argv, &flags)
	switch {
	case err != nil || detail.ID == "":
		return err
	case flags.detach:
		return a.showMade(ctx, detail)
	}
	if err := a.awaitInit(ctx, detail, flags.exec.wait); err != nil {
		return err
	}
	err = a.attach(ctx, detail, req)
	if flags.remove {
		return firstError(err, a.removeVM(ctx, detail))
	}
	a.remind(detail)
	return err
}

// showMade tells which VM was made, for programs by the operation that did it.
func (a *app) showMade(ctx context.Context, vm api.VMDetail) error {
	if !a.json {
		_, err := fmt.Fprintln(a.Out, escape(vm.Spec.Name))
		return err
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Operations(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(o api.Operation) bool { return o.Result != nil && o.Result.VM != nil && o.Result.VM.ID == vm.ID })
	if at < 0 {
		return &banger.Error{Kind: banger.ErrNotFound, Op: "operation that made", Subject: vm.Spec.Name, Err: errors.New("the daemon has forgotten it"), Hint: "banger vm show --json " + vm.Spec.Name}
	}
	return a.printJSON(all[at])
}

// make makes and starts a VM and puts repositories into it. It gives what is to be run there; and no VM when one is only talked
// about, or made by the daemon alone.
func (a *app) make(ctx context.Context, paths, argv []string, flags *runFlags) (vm api.VMDetail, exec banger.ExecRequest, err error) {
	start := a.now()
	if len(paths) == 0 {
		if err := flags.plan.unused(); err != nil {
			return vm, exec, err
		}
	}
	plans, err := flags.plan.plan(ctx, paths, flags.exec.user)
	if err != nil {
		return vm, exec, err
	}
	wish, err := a.wishOf(ctx, flags, plans)
	if err != nil {
		return vm, exec, err
	}
	if !flags.noBootstrap && argv == nil && !flags.ociCmd {
		detectTools(ctx, plans)
	}
	if flags.plan.dryRun {
		return vm, exec, a.showPlans(plans, wish)
	}
	for _, notice := range wish.Notices {
		a.notice("%s", notice)
	}
	req := flags.req
	if req.Env, err = flags.exec.environment(os.LookupEnv); err != nil {
		return vm, exec, err
	}
	if err := flags.spec.host.apply(&req, os.LookupEnv); err != nil {
		return vm, exec, err
	}
	if len(plans) > 0 {
		if err := wish.apply(ctx, a, &req, flags, plans); err != nil {
			return vm, exec, err
		}
	}
	if err := a.checkToolNet(ctx, plans, req.Net); err != nil {
		return vm, exec, err
	}
	req.User, req.Start, req.Remove, req.Overcommit = flags.exec.user, true, flags.remove, flags.overcommit
	dir := flags.exec.workdir
	if flags.ociCmd {
		if argv, dir, err = a.ownCommand(ctx, req.Image, argv, dir); err != nil {
			return vm, exec, err
		}
	}
	gitIdentity(ctx, &req)
	if flags.detach && len(plans) == 0 {
		return vm, exec, a.runDetached(ctx, req)
	}
	steps := &stages{}
	detail, err := a.create(ctx, req, steps)
	if err != nil {
		return vm, exec, streamError{err}
	}
	a.notice("%s", specLine(detail.Spec))
	a.notice("ready in %s", seconds(a.now().Sub(start)))
	if flags.timings {
		if err := a.printTimings(steps, detail.Timings); err != nil {
			return vm, exec, streamError{err}
		}
	}
	flags.plan.place(plans, detail.User)
	if err := a.prepare(ctx, detail, plans, false); err != nil {
		return vm, exec, streamError{a.notPrepared(detail, flags.remove, err)}
	}
	how := toolsInBackground
	if flags.detach || len(wish.Settings.Create)+len(wish.Settings.Start) > 0 {
		how = toolsInForeground
	}
	if err := a.bootstrap(ctx, detail, plans, banger.ExecRequest{Env: req.Env, User: req.User}, how); err != nil {
		if !flags.remove {
			a.notice("vm %s runs (away with it: banger vm delete --force %s)", detail.Spec.Name, detail.Spec.Name)
		}
		return vm, exec, streamError{err}
	}
	if err := a.setUpNew(ctx, detail, wish, plans, flags, argv); err != nil {
		return vm, exec, err
	}
	home := ""
	if len(plans) > 0 {
		home = or(wish.folder, plans[0].dest)
	}
	exec = banger.ExecRequest{Argv: argv, Env: req.Env, Dir: dir, HomeDir: home, MakeDir: flags.ociCmd && flags.exec.workdir == "", User: req.User}
	return detail, exec, nil
}

// notPrepared tells that the VM is there all the same.
func (a *app) notPrepared(vm api.VMDetail, remove bool, err error) error {
	if !remove {
		a.notice("vm %s runs, without the repository (away with it: banger vm delete --force %s)", vm.Spec.Name, vm.Spec.Name)
	}
	return err
}

// withoutClient refuses what needs the client that --detach lets go.
func withoutClient(cmd *cobra.Command, argv []string) error {
	name, _ := cmd.Flags().GetString("name")
	hint := "banger ops wait OP && banger vm exec " + or(name, "NAME") + " -- COMMAND"
	if argv != nil {
		return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("vm run: --detach runs no command: nobody would hear what it says"), Hint: hint}
	}
	for _, flag := range []string{"rm", "oci-cmd", "workdir", "wait", "timings"} {
		if cmd.Flags().Changed(flag) {
			return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("vm run: --%s needs the client that --detach lets go", flag), Hint: "leave out one of the two"}
		}
	}
	return nil
}

func (a *app) runDetached(ctx context.Context, req api.CreateRequest) error {
	c, err := a.dial(ctx)
	if err != nil {
		return streamError{err}
	}
	defer c.Close()
	if err := a.detach(ctx, c, api.RouteVMCreate, req); err != nil {
		return streamError{err}
	}
	return nil
}

// ownCommand gives what an image runs, with args in place of its own arguments, and where.
func (a *app) ownCommand(ctx context.Context, image string, args []string, dir string) ([]string, string, error) {
	if image == "" {
		return nil, "", &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("--oci-cmd: which image? the default one has no command of its own"), Hint: "--image NAME"}
	}
	config, err := a.imageConfig(ctx, image)
	if err != nil {
		return nil, "", streamError{err}
	}
	if args == nil {
		args = config.Cmd
	}
	argv := slices.Concat(config.Entrypoint, args)
	if len(argv) == 0 {
		return nil, "", streamError{&banger.Error{Kind: banger.ErrInvalid, Op: "image", Subject: image, Err: errors.New("it has no command of its own"), Hint: "name one after --"}}
	}
	return argv, cmp.Or(dir, config.WorkingDir), nil
}

func (a *app) create(ctx context.Context, req api.CreateRequest, steps *stages) (api.VMDetail, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return api.VMDetail{}, err
	}
	defer c.Close()
	show, end := a.progress()
	defer end()
	return c.CreateVM(ctx, req, steps.record(show))
}

// removeVM deletes the VM at a normal end. The daemon would do it anyway once we are gone: a signal ends the waiting.
func (a *app) removeVM(ctx context.Context, vm api.VMDetail) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	defer a.signals.redirect(func(os.Signal) { cancel() })()
	start := a.now()
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	show, end := a.progress()
	_, err = c.DeleteVM(ctx, string(vm.ID), true, show)
	end()
	a.landWork(ctx, c)
	if errors.Is(err, banger.ErrNotFound) || errors.Is(err, banger.ErrInterrupted) {
		return nil
	}
	if err == nil && a.verbose {
		a.notice("vm %s is deleted (%s)", vm.Spec.Name, seconds(a.now().Sub(start)))
	}
	return err
}

// firstError keeps what the command said; a failure of banger's own after it is told beside.
func firstError(command, after error) error {
	switch {
	case after == nil:
		return command
	case command == nil:
		return streamError{after}
	}
	return failures{command, streamError{after}}
}
