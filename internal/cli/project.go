package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger"
	"banger/api"
	"banger/internal/project"
	"banger/internal/statedir"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// freeDisk is how large a disk a repository may have without asking: it takes up only what is written.
const freeDisk = 64 << 30

// projectFlags say what counts of the files in which a repository says what it wants.
type projectFlags struct {
	variant        string
	noDevcontainer bool
	none           bool
}

func (f *projectFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.variant, "devcontainer", "", "`NAME` of the devcontainer.json that counts: .devcontainer/NAME/devcontainer.json")
	flags.BoolVar(&f.noDevcontainer, "no-devcontainer", false, "without the repository's devcontainer.json")
	_ = cmd.RegisterFlagCompletionFunc("devcontainer", func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return project.Variants(or(strings.Join(args[:min(1, len(args))], ""), ".")), cobra.ShellCompDirectiveNoFileComp
	})
}

func (f *projectFlags) addNone(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.none, "no-project", false, "without the repository's .banger.toml and devcontainer.json")
}

// load reads the files of the repository at root.
func (f *projectFlags) load(root string) (*project.Project, error) {
	if f.variant != "" && (f.noDevcontainer || f.none) {
		return nil, banger.Invalidf("--devcontainer names a file, and --no-devcontainer or --no-project wants none")
	}
	if f.none {
		return &project.Project{Root: root}, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	return project.Load(root, project.Options{Variant: f.variant, NoDevcontainer: f.noDevcontainer, Home: home})
}

// wish is what a repository's files add to a run. What flags say is not in it.
type wish struct {
	*project.Project
	defaults []banger.Setting
	host     project.Host
	needs    []project.Need
	missing  []project.Need // that the user has not allowed
	image    string         // as --image takes it
	folder   string         // where commands run; empty: in the repository
}

// wishOf reads what the first of the repositories wants beside flags, and has where it lies in the VM and its user follow. Nothing of it
// is used without the consent that it needs; with dryRun nobody is asked.
func (a *app) wishOf(ctx context.Context, flags *runFlags, plans []planned) (*wish, error) {
	w := &wish{Project: &project.Project{}}
	if len(plans) == 0 {
		return w, nil
	}
	var err error
	if w.Project, err = flags.project.load(plans[0].Repo.Root); err != nil {
		return w, err
	}
	if !flags.project.none {
		w.Notices = append(w.Notices, ignored(plans[1:], flags.project.noDevcontainer, "those of the first PATH count")...)
	}
	if len(w.Files) == 0 {
		return w, nil
	}
	w.Settings = w.Settings.Without(flags.instead(w.Settings)...)
	if err := a.weigh(ctx, w); err != nil {
		return w, err
	}
	if !flags.plan.dryRun && len(w.missing) > 0 {
		if err := a.consent(ctx, w, "vm run"); err != nil {
			return w, err
		}
	}
	values := project.Values{Root: w.Root}
	if !flags.plan.dryRun {
		values.LocalEnv = os.LookupEnv
	}
	first, err := w.Settings.Resolve(values)
	if err != nil {
		return w, err
	}
	w.image = first.ImageRef()
	flags.exec.user = or(flags.exec.user, first.User)
	w.place(flags, plans, first.Folder)
	return w, nil
}

// ignored tells of each repository's files that say what VM it wants, and are not followed.
func ignored(plans []planned, noDevcontainer bool, why string) (notices []string) {
	for _, p := range plans {
		if names := project.Present(p.Repo.Root, noDevcontainer); names != nil {
			notices = append(notices, fmt.Sprintf("%s in %s is not followed: %s", strings.Join(names, " and "), p.Repo.Root, why))
		}
	}
	return notices
}

// instead names what flags say in place of the files.
func (f *runFlags) instead(s project.Settings) (keys []string) {
	changed := f.spec.cmd.Flags().Changed
	for _, l := range []struct {
		said bool
		keys []string
	}{{f.req.Image != "", []string{project.KeyImage}}, {f.req.VCPU != nil, []string{project.KeyVCPU}}, {f.req.MemoryMiB != nil, []string{project.KeyMemory}},
		{f.req.DiskBytes != nil, []string{project.KeyDisk}}, {f.req.Net.Set.Given, []string{project.KeyNet, project.KeyHostPorts}},
		{changed("user"), []string{project.KeyUser}}, {changed("guest-path"), []string{project.KeyFolder}}} {
		if l.said {
			keys = append(keys, l.keys...)
		}
	}
	for _, text := range f.exec.env {
		name, _, _ := strings.Cut(text, "=")
		if _, ok := s.Env[name]; ok {
			keys = append(keys, project.KeyEnv+"."+name)
		}
	}
	return keys
}

// weigh compares what is wanted with what every VM may have, and that with what the user has allowed.
func (a *app) weigh(ctx context.Context, w *wish) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if w.defaults, err = c.Settings(ctx); err != nil {
		return err
	}
	if w.host, err = hostOf(w.defaults); err != nil {
		return err
	}
	w.needs = w.Settings.Needs(w.Root, w.host)
	dir, err := statedir.Locate()
	if err != nil {
		return err
	}
	w.missing, err = project.Consents{Dir: dir}.Missing(w.Project, w.needs)
	return err
}

// hostOf gives what a repository may have without asking: as many processors as there are, half of the memory, and what
// is the default.
func hostOf(defaults []banger.Setting) (h project.Host, err error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return h, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return h, err
	}
	h.Net, err = banger.ParseNetPolicy(setting(defaults, "vm_defaults.net").Value)
	h.Image = setting(defaults, "images.default").Value
	h.VCPU = max(int64(runtime.NumCPU()), sizeOf(defaults, "vm_defaults.vcpu"))
	h.Memory = max(int64(info.Totalram)*int64(info.Unit)/2, sizeOf(defaults, "vm_defaults.memory"))
	h.Disk = max(freeDisk, sizeOf(defaults, "vm_defaults.disk_size"))
	h.SignedIn = func(registry string) bool { return project.SignedIn(registry, home, os.Getenv) }
	return h, err
}

func setting(list []banger.Setting, key string) banger.Setting {
	for _, s := range list {
		if s.Key == key {
			return s
		}
	}
	return banger.Setting{}
}

// sizeOf gives a default that is a number or a size; 0 for one that can't be told.
func sizeOf(list []banger.Setting, key string) int64 {
	n, _ := banger.ParseSize(setting(list, key).Value)
	return n
}

// place has the repository lie where its files say: there, or in the parent when they name a directory in it.
func (w *wish) place(flags *runFlags, plans []planned, folder string) {
	own := path.Join("/workspaces", path.Base(w.Root))
	switch {
	case folder == "" || len(plans) > 1:
	case strings.HasPrefix(folder, own+"/"):
		flags.plan.guestPath, w.folder = own, path.Clean(folder)
	case banger.ValidateGuestPath(folder) != nil:
		w.Notices = append(w.Notices, fmt.Sprintf("%s: the repository can't lie in %s: want an absolute path of at least two parts", w.Settings.From[project.KeyFolder], folder))
	default:
		flags.plan.guestPath = folder
	}
	flags.plan.place(plans, flags.exec.user)
}

// apply adds what is wanted to a request that has what flags say.
func (w *wish) apply(ctx context.Context, a *app, req *api.CreateRequest, flags *runFlags, plans []planned) error {
	if len(w.Files) == 0 {
		return nil
	}
	req.Image = or(req.Image, w.image)
	image := or(req.Image, w.host.Image)
	if flags.exec.user == "" { // the place is what a variable stands for; in the end the VM tells whom its commands run as
		config, err := a.imageConfig(ctx, image)
		if err != nil && !errors.Is(err, banger.ErrNotFound) {
			return err
		}
		flags.plan.place(plans, config.User)
	}
	s, err := w.Settings.Resolve(project.Values{Root: w.Root, Folder: or(w.folder, plans[0].dest), LocalEnv: os.LookupEnv, ContainerEnv: a.imageEnv(ctx, image)})
	if err != nil {
		return err
	}
	w.Settings = s
	if n := s.VCPU.Of(sizeOf(w.defaults, "vm_defaults.vcpu")); req.VCPU == nil && n != 0 {
		vcpu := int(n)
		req.VCPU = &vcpu
	}
	if n := s.Memory.Of(sizeOf(w.defaults, "vm_defaults.memory")); req.MemoryMiB == nil && n != 0 {
		mib := int(n >> 20)
		req.MemoryMiB = &mib
	}
	if n := s.Disk.Of(sizeOf(w.defaults, "vm_defaults.disk_size")); req.DiskBytes == nil && n != 0 {
		req.DiskBytes = &n
	}
	if s.Net.Given {
		req.Net.Set = project.Network(s.Net, w.host.Net)
	}
	for _, port := range s.HostPorts {
		req.Net.Allow = append(req.Net.Allow, banger.NetRule{Host: true, Port: port}.String())
	}
	req.Sync = slices.Concat(s.Copies, req.Sync) // the later stands above
	w.publish(a, req)
	req.Env = w.environment(req.Env)
	return nil
}

// environment joins variables with those that flags give, which stand above.
func (w *wish) environment(given map[string]string) map[string]string {
	if len(w.Settings.Env) == 0 {
		return given
	}
	env := maps.Clone(w.Settings.Env)
	maps.Copy(env, given)
	return env
}

// publish pins the ports that flags have not pinned. One that is only wanted is left out when something listens here already.
func (w *wish) publish(a *app, req *api.CreateRequest) {
	given := slices.Clone(req.Publish)
	for _, f := range w.Settings.Ports {
		if slices.ContainsFunc(given, func(p banger.Publish) bool { return p.Host == f.Host || f.Wanted && p.Guest == f.Guest }) {
			continue
		}
		if f.Wanted {
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(f.Host))
			if err != nil {
				a.notice("port %d of the VM is not opened as %s here, which is taken: look at vm ports, or use -p", f.Guest, f.Host)
				continue
			}
			l.Close()
		}
		req.Publish = append(req.Publish, f.Publish)
	}
}

// imageEnv gives variables of an image, which is pulled for that if need be.
func (a *app) imageEnv(ctx context.Context, image string) func(string) (string, error) {
	var env []string
	asked := false
	return func(name string) (string, error) {
		if !asked {
			config, err := a.imageConfig(ctx, image)
			if err != nil && !errors.Is(err, banger.ErrNotFound) {
				return "", err
			}
			env, asked = config.Env, true
		}
		for _, assignment := range env {
			if value, ok := strings.CutPrefix(assignment, name+"="); ok {
				return value, nil
			}
		}
		if name == "PATH" {
			return banger.DefaultPath, nil
		}
		return "", nil
	}
}

// imageConfig gives what an image says about itself. One of a registry is pulled. Errors: ErrNotFound.
func (a *app) imageConfig(ctx context.Context, image string) (banger.ImageConfig, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return banger.ImageConfig{}, err
	}
	defer c.Close()
	found, err := c.ShowImage(ctx, image)
	if errors.Is(err, banger.ErrNotFound) && strings.ContainsAny(image, ":/@") {
		show, end := a.progress()
		found.Image, err = c.PullImage(ctx, api.PullRequest{Ref: image}, show)
		end()
	}
	if err != nil || found.Config == nil {
		return banger.ImageConfig{}, err
	}
	return *found.Config, nil
}

// makeVolumes makes directories in a running VM, for its user. One that is there stays as it is.
func (a *app) makeVolumes(ctx context.Context, vm api.VMDetail, dirs []string) error {
	if len(dirs) == 0 {
		return nil
	}
	paths := map[string]bool{}
	for _, dir := range dirs {
		for at := strings.Trim(path.Clean(dir), "/"); at != "." && at != ""; at = path.Dir(at) {
			paths[at] = true
		}
	}
	var entries []tree.Entry
	for _, at := range slices.Sorted(maps.Keys(paths)) {
		e := tree.Directory(at, 0o755)
		e.ModTime = a.now()
		entries = append(entries, e)
	}
	if err := a.guest(vm).Bring(ctx, transfer.Put{Path: []byte("/"), Origin: transfer.Origin{Dir: true}}, tree.Of(entries...)); err != nil {
		return &banger.Error{Op: "make directories", Subject: strings.Join(dirs, ", "), Err: err}
	}
	return nil
}
