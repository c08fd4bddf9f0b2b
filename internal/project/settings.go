package project

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"banger"
)

// Keys of settings, as [Settings.From] and --dry-run name them.
const (
	KeyImage     = "image"
	KeyVCPU      = "vcpu"
	KeyMemory    = "memory"
	KeyDisk      = "disk_size"
	KeyNet       = "net"
	KeyHostPorts = "allow_host"
	KeyPorts     = "ports"
	KeyUser      = "user"
	KeyFolder    = "workspace"
	KeyEnv       = "env"
	KeyVolumes   = "volumes"
	KeyCopies    = "sync"
	KeyCreate    = "commands.create"
	KeyStart     = "commands.start"
)

// Size is a number of processors or bytes.
type Size struct {
	N       int64
	AtLeast bool // as a minimum: the default may be more
}

// Of gives the size where def is the default; 0 means that the default is right.
func (s Size) Of(def int64) int64 {
	if s.AtLeast && s.N <= def {
		return 0
	}
	return s.N
}

// Forward is a port of the VM that is opened here.
type Forward struct {
	banger.Publish
	Wanted bool // left out when it can't be had here: devcontainer.json names the guest's port only
}

// Command is run in the guest.
type Command struct {
	Name string   `json:"name"`           // "onCreateCommand", "commands.create[0]"
	Line string   `json:"line,omitempty"` // for /bin/sh; else Argv
	Argv []string `json:"argv,omitempty"` // program and its arguments; absent: Line is run
}

// Args is what is started.
func (c Command) Args() []string {
	if c.Line != "" {
		return []string{"/bin/sh", "-c", c.Line}
	}
	return c.Argv
}

func (c Command) String() string {
	if c.Line != "" {
		return c.Line
	}
	return strings.Join(c.Argv, " ")
}

// Settings are what a repository wants. Texts may hold variables: see [Settings.Resolve].
type Settings struct {
	Image     string
	Registry  bool // Image is one of a registry, even if it looks like a plain name
	VCPU      Size
	Memory    Size // bytes
	Disk      Size // bytes
	Net       banger.NetPolicy
	HostPorts []uint16 // of this computer's loopback address, that the VM reaches
	Ports     []Forward
	User      string
	Folder    string // where the repository lies in the VM, or a directory in it
	Env       map[string]string
	Volumes   []string          // directories of the VM
	Copies    []banger.FileSync // Host is absolute or "~/…", and holds no variables once [Load] has given it
	Create    []Command         // once
	Start     []Command         // at each start

	From map[string]string // key → file that it is from; each variable of Env by itself: "env.NAME"
}

// note says where what is set comes from.
func (s *Settings) note(file string) {
	s.From = map[string]string{}
	for key, set := range map[string]bool{
		KeyImage: s.Image != "", KeyVCPU: s.VCPU.N != 0, KeyMemory: s.Memory.N != 0, KeyDisk: s.Disk.N != 0, KeyNet: s.Net.Given, KeyHostPorts: len(s.HostPorts) > 0,
		KeyPorts: len(s.Ports) > 0, KeyUser: s.User != "", KeyFolder: s.Folder != "", KeyVolumes: len(s.Volumes) > 0, KeyCopies: len(s.Copies) > 0,
		KeyCreate: len(s.Create) > 0, KeyStart: len(s.Start) > 0,
	} {
		if set {
			s.From[key] = file
		}
	}
	for name := range s.Env {
		s.From[envKey(name)] = file
	}
}

func envKey(name string) string { return KeyEnv + "." + name }

// over gives s, and what s does not say from below. Variables are taken one by one, everything else as a whole.
func (s Settings) over(below Settings) Settings {
	merged := s
	take := func(key string, do func()) {
		if s.From[key] == "" && below.From[key] != "" {
			do()
		}
	}
	take(KeyImage, func() { merged.Image, merged.Registry = below.Image, below.Registry })
	take(KeyVCPU, func() { merged.VCPU = below.VCPU })
	take(KeyMemory, func() { merged.Memory = below.Memory })
	take(KeyDisk, func() { merged.Disk = below.Disk })
	take(KeyNet, func() { merged.Net = below.Net })
	take(KeyHostPorts, func() { merged.HostPorts = below.HostPorts })
	take(KeyPorts, func() { merged.Ports = below.Ports })
	take(KeyUser, func() { merged.User = below.User })
	take(KeyFolder, func() { merged.Folder = below.Folder })
	take(KeyVolumes, func() { merged.Volumes = below.Volumes })
	take(KeyCopies, func() { merged.Copies = below.Copies })
	take(KeyCreate, func() { merged.Create = below.Create })
	take(KeyStart, func() { merged.Start = below.Start })
	merged.Env = joined(below.Env, s.Env)
	merged.From = joined(below.From, s.From)
	return merged
}

func joined(below, above map[string]string) map[string]string {
	if len(below)+len(above) == 0 {
		return nil
	}
	all := map[string]string{}
	maps.Copy(all, below)
	maps.Copy(all, above)
	return all
}

// Without leaves out what a flag says instead.
func (s Settings) Without(keys ...string) Settings {
	dropped := s
	dropped.From = maps.Clone(s.From)
	dropped.Env = maps.Clone(s.Env)
	for _, key := range keys {
		delete(dropped.From, key)
		switch key {
		case KeyImage:
			dropped.Image, dropped.Registry = "", false
		case KeyVCPU:
			dropped.VCPU = Size{}
		case KeyMemory:
			dropped.Memory = Size{}
		case KeyDisk:
			dropped.Disk = Size{}
		case KeyNet:
			dropped.Net = banger.NetPolicy{}
		case KeyHostPorts:
			dropped.HostPorts = nil
		case KeyUser:
			dropped.User = ""
		case KeyFolder:
			dropped.Folder = ""
		default:
			name, ok := strings.CutPrefix(key, KeyEnv+".")
			if !ok {
				panic("no flag stands for " + key)
			}
			delete(dropped.Env, name)
		}
	}
	return dropped
}

// maxVolumes bounds the directories that are made.
const maxVolumes = 64

// check finds what no VM can have, before variables are replaced.
func (s *Settings) check() error {
	spec := banger.VMSpec{Name: "x", Image: "x", VCPU: 1, MemoryMiB: banger.MinMemoryMiB, DiskBytes: banger.MinDiskBytes, Env: s.Env}
	if s.VCPU.N != 0 {
		spec.VCPU = int(min(max(s.VCPU.N, 0), banger.MaxVCPU+1))
	}
	if s.Memory.N != 0 {
		spec.MemoryMiB = int(min(max(s.Memory.N>>20, 0), banger.MaxMemoryMiB+1))
	}
	if s.Disk.N != 0 {
		spec.DiskBytes = s.Disk.N
	}
	for _, f := range s.Ports {
		spec.Publish = append(spec.Publish, f.Publish)
	}
	if len(s.Volumes) > maxVolumes {
		return fmt.Errorf("%d directories to make: want at most %d", len(s.Volumes), maxVolumes)
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	var bad error
	s.texts(func(key string, text *string) {
		if bad == nil && strings.ContainsRune(*text, 0) {
			bad = fmt.Errorf("%s: it has a NUL byte", key)
		}
	})
	return bad
}

// checkResolved finds what is wrong with texts whose variables are replaced.
func (s *Settings) checkResolved() error {
	if err := errors.Join(s.check(), checkUser(s.User)); err != nil {
		return err
	}
	for _, dir := range s.Volumes {
		if err := checkDirectory(dir); err != nil {
			return err
		}
	}
	return nil
}

func checkDirectory(dir string) error {
	if !strings.HasPrefix(dir, "/") || slices.Contains(strings.Split(dir, "/"), "..") || len(dir) > 1024 {
		return fmt.Errorf("directory %.100q: want an absolute path", dir)
	}
	return nil
}

// texts hands every text in which variables are replaced to visit, in a fixed order.
func (s *Settings) texts(visit func(key string, text *string)) {
	visit(KeyImage, &s.Image)
	visit(KeyUser, &s.User)
	visit(KeyFolder, &s.Folder)
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		value := s.Env[name]
		visit(envKey(name), &value)
		s.Env[name] = value
	}
	for i := range s.Volumes {
		visit(KeyVolumes, &s.Volumes[i])
	}
	for _, l := range []struct {
		key  string
		list []Command
	}{{KeyCreate, s.Create}, {KeyStart, s.Start}} {
		for i := range l.list {
			visit(l.key, &l.list[i].Line)
			for j := range l.list[i].Argv {
				visit(l.key, &l.list[i].Argv[j])
			}
		}
	}
}

// clone copies what texts changes.
func (s Settings) clone() Settings {
	s.Env, s.Volumes = maps.Clone(s.Env), slices.Clone(s.Volumes)
	for _, list := range []*[]Command{&s.Create, &s.Start} {
		*list = slices.Clone(*list)
		for i := range *list {
			(*list)[i].Argv = slices.Clone((*list)[i].Argv)
		}
	}
	return s
}

// loopback is where ports are opened when nothing else is said.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func forwardPort(port uint16) Forward {
	return Forward{Publish: banger.Publish{Host: netip.AddrPortFrom(loopback, port), Guest: port}, Wanted: true}
}
