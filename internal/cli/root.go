package cli

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger"
	"banger/internal/config"
)

func (a *app) rootCommand() *cobra.Command {
	cobra.EnableCommandSorting = false // what is used most comes first
	root := a.group("banger", "a Linux machine of its own for every task", `
banger boots small Linux machines on this computer: each has its own kernel, file system, disk and name, and
what runs inside is kept away from the host. It needs no account and no root.`, `
  banger vm run                      a shell in a new machine
  banger vm run ./repo               the same with a repository in it
  banger vm run --rm -- uname -a     one command, then the machine is gone
  banger ps                          what there is
  banger vm shell NAME               back into a machine
  banger vm delete --force NAME      away with it`,
		a.vmGroup(), a.psCommand(), a.topCommand(), a.workspaceGroup(), a.allow(), a.autosaveGroup(), a.imageGroup(), a.kernelGroup(), a.catalogGroup(), a.diskGroup(), a.sshConfig(), a.sshProxy(), a.dnsGroup(), a.opsGroup(), a.configGroup(), a.daemonGroup(), a.doctorCommand(), a.mcpCommand(), a.versionCommand())
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		a.warnOfVariables(cmd)
		return a.chooseFormat(cmd, args)
	}
	root.Version = "banger " + a.build.String()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "results and errors as JSON")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no progress; lists show ids only")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "progress with every detail")
	flags.BoolVar(&a.noPager, "no-pager", false, "show long output as it is")
	flags.SortFlags = false
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(usageTemplate)
	a.addTree(root)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Short, cmd.Long, cmd.Example = "help about any command", "", "  banger help vm run\n  banger vm run --help     the same\n  banger --tree            all commands"
		case "completion":
			describeCompletion(cmd)
		}
	}
	a.addFormats(root)
	a.strict(root)
	return root
}

// warnOfVariables tells of settings in the environment that are none. A command that other programs run says nothing.
func (a *app) warnOfVariables(cmd *cobra.Command) {
	if a.silent() || cmd.Hidden || cmd.Name() == "ssh-proxy" {
		return
	}
	for _, text := range config.Mistyped(os.Environ()) {
		fmt.Fprintln(a.Err, "banger: the variable "+text)
	}
}

const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{if .Aliases}}

Aliases:
  {{.NameAndAliases}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

func (a *app) vmGroup() *cobra.Command {
	return a.group("vm", "make, use and remove machines", `
A VM is a machine with a disk of its own: what you write there stays when it stops, until it is deleted. VMs are
named by their name, their id or the beginning of the id.`, `
  banger vm run --name devbox                  make one and get a shell in it
  banger vm exec devbox -- git --version       run a command in it
  banger vm stop devbox                        its disk stays
  banger vm start devbox
  banger vm delete --force devbox              with its disk

What comes next: "banger vm run --help" for sizes, environment and users.`,
		a.vmRun(), a.vmCreate(), a.vmStart(), a.vmStop(), a.vmRestart(), a.vmKill(), a.vmList(), a.vmShow(), a.vmExec(), a.vmShell(), a.vmSSH(), a.vmPorts(), a.vmAttach(),
		a.vmCopy(), a.vmLogs(), a.vmNet(), a.vmStats(), a.vmWait(), a.vmSet(), a.vmRename(), a.vmDelete(), a.vmPrune())
}

func (a *app) imageGroup() *cobra.Command {
	return a.group("image", "what machines are made from", `
An image is the read-only file system that machines of one kind share. The first "vm run" builds the default one.`, `
  banger image list                            what is ready
  banger image pull alpine:3 --name alpine     from a registry
  docker save alpine | banger image import - --name alpine
  banger image build web --packages nginx      from Debian's packages
  banger vm run --image alpine                 a machine from it
  banger image register mine --rootfs FILE     an ext4 image that stays where it is
  banger image export alpine alpine.tar.zst
  banger image delete alpine                   when no machine uses it any more`,
		a.imageList(), a.imageShow(), a.imagePull(), a.imageImport(), a.imageBuild(), a.imageRegister(), a.imagePromote(), a.imageExport(), a.imagePublish(), a.imageDelete(), a.imagePrune(), a.imageCache())
}

func (a *app) kernelGroup() *cobra.Command {
	return a.group("kernel", "what machines boot", `
A kernel comes from a distribution's package, with all its modules. The first "vm run" fetches the default one; others are imported.`, `
  banger kernel list                           what is ready
  banger kernel list --available               what can be had by name
  banger kernel pull debian-cloud              fetch the default one now
  banger kernel import mine --host             the kernel of this computer
  banger vm run --kernel mine                  a machine that boots it
  banger kernel show mine                      what it has for machines, and what not
  banger kernel delete mine                    when no machine uses it any more`,
		a.kernelList(), a.kernelShow(), a.kernelPull(), a.kernelImport(), a.kernelPublish(), a.kernelDelete())
}

func (a *app) daemonGroup() *cobra.Command {
	return a.group("daemon", "the background process", `
bangerd runs as you and decides about images and machines. Commands that need it start it. Machines and the
commands in them go on while it is down.`, `
  banger daemon status                         where it listens and logs
  banger daemon stop                           machines go on
  banger daemon api                            what programs can ask it`,
		a.daemonStatus(), a.daemonStop(), a.daemonAPI())
}

// group is a command that only holds others.
func (a *app) group(name, short, long, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short, Long: strings.TrimSpace(long), Example: strings.Trim(example, "\n"),
		Args: cobra.ArbitraryArgs, RunE: showOrRefuse,
	}
	cmd.AddCommand(commands...)
	return cmd
}

// showOrRefuse is what a group does: alone it shows its help, with an argument that is no command it refuses.
func showOrRefuse(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(append(names, sub.Name()), sub.Aliases...)
		}
	}
	return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0]),
		Hint: or(didYouMean(args[0], names, cmd.CommandPath()+" "), "see: "+cmd.CommandPath()+" --help")}
}

// didYouMean names what was meant, each with prefix before it; "" when nothing is near.
func didYouMean(name string, candidates []string, prefix string) string {
	near := banger.Near(name, candidates)
	if len(near) == 0 {
		return ""
	}
	return "did you mean " + prefix + strings.Join(near, " or "+prefix) + "?"
}

func or(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}

// flagError gives a mistake in a flag its kind, in plain words, and names the flag that was meant.
func flagError(cmd *cobra.Command, err error) error {
	hint := "see: " + cmd.CommandPath() + " --help"
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		hint = or(didYouMean(unknown.GetSpecifiedName(), names, "--"), hint)
	}
	if value, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		hint = or(banger.HintOf(value.Unwrap()), hint)
		err = fmt.Errorf("--%s: %w", value.GetFlag().Name, value.Unwrap())
		if _, ok := errors.AsType[*strconv.NumError](err); ok {
			err = fmt.Errorf("--%s %q: want a number", value.GetFlag().Name, value.GetValue())
		}
	}
	return &banger.Error{Kind: banger.ErrInvalid, Err: err, Hint: hint}
}

// strict makes every mistake in arguments a usage error, and shows flags in the order in which they are defined.
func (a *app) strict(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.DisableFlagsInUseLine = true
	check := cmd.Args
	if cmd.ValidArgsFunction == nil && (cmd.HasSubCommands() || check != nil && check(cmd, []string{"x"}) != nil && check(cmd, nil) == nil) {
		cmd.ValidArgsFunction = cobra.NoFileCompletions // it takes no argument, so no file either
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if a.quiet && a.verbose {
			return banger.Invalidf("--quiet and --verbose exclude each other")
		}
		if check == nil {
			return nil
		}
		err := check(cmd, args)
		if err == nil || errors.Is(err, banger.ErrInvalid) {
			return err
		}
		return &banger.Error{Kind: banger.ErrInvalid, Err: err, Hint: "usage: " + cmd.UseLine()}
	}
	for _, sub := range cmd.Commands() {
		a.strict(sub)
	}
}

// inputError is a mistake in the arguments of cmd.
func inputError(cmd *cobra.Command, format string, args ...any) error {
	name := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
	return &banger.Error{Kind: banger.ErrInvalid, Op: name, Err: fmt.Errorf(format, args...), Hint: "usage: " + cmd.UseLine()}
}

// oneVM, someVMs and noArgs check the number of arguments.
func oneVM(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return inputError(cmd, "want the name of one VM, got %d arguments", len(args))
	}
	return nil
}

func someVMs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return inputError(cmd, "want the name of a VM")
	}
	return nil
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return inputError(cmd, "there is no argument, got %q", args[0])
	}
	return nil
}
