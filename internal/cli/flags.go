package cli

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

// specFlags are what describes a new VM.
type specFlags struct {
	name   string
	image  string
	kernel string
	vcpu   int
	memory memoryMiB
	disk   diskBytes
	labels []string
	age    ageFlags
	ports  []string
	sync   []string
	host   hostFlags
	net    netFlags
	cmd    *cobra.Command
}

func (f *specFlags) add(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "`name` of the VM (default: one is made up)")
	flags.StringVar(&f.image, "image", "", "`image`: a name of image list, or a reference: alpine:3 (default: as configured, else debian-bookworm)")
	flags.StringVar(&f.kernel, "kernel", "", "`kernel` to boot: a name of kernel list (default: the image's own, else debian-cloud)")
	f.addSizes(cmd, " (default: as configured, else by this computer)", " (default: as configured, else 8G)")
	f.host.add(cmd)
	flags.StringArrayVarP(&f.ports, "publish", "p", nil, "pin a `port` here to one of the VM: 8080:80, or 127.0.0.1:8080:80 (repeatable)")
	_ = cmd.RegisterFlagCompletionFunc("publish", cobra.NoFileCompletions)
	flags.StringArrayVar(&f.sync, "sync", nil, "a `file` of your home to copy in at each start: HOST[:GUEST[:MODE]] (repeatable)")
	f.age.add(cmd)
	f.net.add(cmd)
	_ = cmd.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("image", a.completeImages)
	_ = cmd.RegisterFlagCompletionFunc("kernel", a.completeAnyKernel)
}

// addSizes adds the flags of what can be changed afterwards, too. The words are on what holds without them.
func (f *specFlags) addSizes(cmd *cobra.Command, size, disk string) {
	f.cmd = cmd
	flags := cmd.Flags()
	flags.IntVar(&f.vcpu, "vcpu", 0, "`number` of virtual processors"+size)
	flags.Var(&f.memory, "memory", "memory: MiB, or with a unit: 2G"+size)
	flags.Var(&f.disk, "disk-size", "size of its disk: 8G; it takes up what is written"+disk)
	flags.StringArrayVar(&f.labels, "label", nil, "`KEY=VALUE` to keep with the VM (repeatable)")
	for _, name := range []string{"vcpu", "memory", "disk-size", "label"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// request checks the flags and gives what the daemon is asked; what was not given stays open.
func (f *specFlags) request() (api.CreateRequest, error) {
	req := api.CreateRequest{Name: f.name, Image: f.image, Kernel: f.kernel}
	spec := banger.VMSpec{Name: f.name, Image: f.image, VCPU: 1, MemoryMiB: banger.MinMemoryMiB, DiskBytes: banger.MinDiskBytes}
	changed := f.cmd.Flags().Changed
	for _, text := range []string{"name", "image", "kernel"} {
		if changed(text) && f.cmd.Flag(text).Value.String() == "" {
			return req, banger.Invalidf("--%s: no name given", text)
		}
	}
	if changed("vcpu") {
		req.VCPU, spec.VCPU = &f.vcpu, f.vcpu
	}
	if changed("memory") {
		mib := int(f.memory)
		req.MemoryMiB, spec.MemoryMiB = &mib, mib
	}
	if changed("disk-size") {
		bytes := int64(f.disk)
		req.DiskBytes, spec.DiskBytes = &bytes, bytes
	}
	if err := f.age.request(f.cmd, &req); err != nil {
		return req, err
	}
	labels, err := parseLabels(f.labels)
	if err != nil {
		return req, err
	}
	for _, text := range f.ports {
		p, err := banger.ParsePublish(text)
		if err != nil {
			return req, err
		}
		req.Publish = append(req.Publish, p)
	}
	if req.Sync, err = parseSync(f.sync); err != nil {
		return req, err
	}
	spec.Publish = req.Publish
	req.Labels, spec.Labels = labels, labels
	if req.Net, err = f.net.change(); err != nil {
		return req, err
	}
	return req, validate(spec)
}

// parseSync reads what --sync names; the daemon finds out whether it is there.
func parseSync(list []string) ([]banger.FileSync, error) {
	if len(list) == 0 {
		return nil, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	var sync []banger.FileSync
	for _, text := range list {
		f, err := banger.ParseFileSync(text)
		if err == nil {
			_, _, err = f.Paths(home)
		}
		if err != nil {
			return nil, err
		}
		sync = append(sync, f)
	}
	return sync, nil
}

func parseLabels(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	labels := map[string]string{}
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, &banger.Error{Kind: banger.ErrInvalid, Op: "--label", Subject: strconv.Quote(text), Err: fmt.Errorf("want KEY=VALUE")}
		}
		labels[key] = value
	}
	return labels, nil
}

// memoryMiB is a flag in MiB that also takes a unit.
type memoryMiB int

func (m *memoryMiB) Set(text string) error {
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		*m = memoryMiB(n)
		return nil
	}
	bytes, err := banger.ParseSize(text)
	if err != nil {
		return err
	}
	*m = memoryMiB(min(bytes>>20, math.MaxInt32))
	return nil
}

func (m *memoryMiB) String() string { return number(int64(*m)) }
func (m *memoryMiB) Type() string   { return "size" }

// diskBytes is a flag in bytes that wants a unit.
type diskBytes int64

func (d *diskBytes) Set(text string) error {
	bytes, err := banger.ParseSize(text)
	*d = diskBytes(bytes)
	return err
}

func (d *diskBytes) String() string { return number(int64(*d)) }
func (d *diskBytes) Type() string   { return "size" }

// number leaves the zero of a flag that was not given out of the help.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// execFlags are what describes a command in a VM.
type execFlags struct {
	env     []string
	envFile []string
	workdir string
	user    string
	wait    waitFor
}

func (f *execFlags) add(cmd *cobra.Command) {
	f.addEnv(cmd)
	cmd.Flags().StringVarP(&f.workdir, "workdir", "w", "", "`directory` in the VM (default: where the repository is, else the user's home)")
	_ = cmd.RegisterFlagCompletionFunc("workdir", cobra.NoFileCompletions)
	f.wait = waitForSystem
	cmd.Flags().Var(&f.wait, "wait", "`what` to wait for: system, the image's own init, at most 30 s; or agent")
	_ = cmd.RegisterFlagCompletionFunc("wait", cobra.FixedCompletions([]cobra.Completion{string(waitForSystem), string(waitForAgent)}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *execFlags) addEnv(cmd *cobra.Command) {
	f.addVariables(cmd)
	cmd.Flags().StringVar(&f.user, "user", "", "`user` in the VM: a name, or uid[:gid] (default: root)")
	_ = cmd.RegisterFlagCompletionFunc("user", cobra.NoFileCompletions)
}

func (f *execFlags) addVariables(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.env, "env", "e", nil, "`KEY=VALUE`, or KEY to pass on your own (repeatable)")
	cmd.Flags().StringArrayVar(&f.envFile, "env-file", nil, "`file` with a KEY=VALUE on each line (repeatable)")
	_ = cmd.RegisterFlagCompletionFunc("env", cobra.NoFileCompletions)
}

// command gives argv: what follows "--". nil means a shell.
func command(cmd *cobra.Command, args []string) ([]string, error) {
	dash := cmd.ArgsLenAtDash()
	if dash < 0 {
		return nil, nil
	}
	if dash == len(args) {
		return nil, inputError(cmd, "there is no command after --")
	}
	if argv := args[dash:]; argv[0] != "" {
		return argv, nil
	}
	return nil, inputError(cmd, "the command is empty")
}

// beforeDash gives the arguments before "--".
func beforeDash(cmd *cobra.Command, args []string) []string {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		return args[:dash]
	}
	return args
}
