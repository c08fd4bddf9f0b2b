package mcp

import (
	"context"
	"fmt"
	"time"

	"banger"
	"banger/internal/project"
)

// ref names a VM.
type ref struct {
	VM string `json:"vm" jsonschema:"the VM: its name or id, as vm_list gives them"`
}

// vmInfo is a VM for agents.
type vmInfo struct {
	Name       string          `json:"name" jsonschema:"its name, which is also its host name"`
	ID         string          `json:"id" jsonschema:"stays the same for the VM's whole life"`
	State      string          `json:"state" jsonschema:"creating, stopped, starting, running, stopping or error"`
	Error      string          `json:"error,omitempty" jsonschema:"why it is in state error"`
	Image      string          `json:"image" jsonschema:"what it was made from"`
	VCPU       int             `json:"vcpu" jsonschema:"virtual processors"`
	MemoryMiB  int             `json:"memory_mib" jsonschema:"memory in MiB"`
	DiskMiB    int64           `json:"disk_mib" jsonschema:"size of its disk in MiB"`
	Net        string          `json:"net" jsonschema:"what its network reaches: full (the internet), none, or allow=RULE,..."`
	User       string          `json:"user" jsonschema:"whom commands run as by default"`
	CreatedAt  string          `json:"created_at" jsonschema:"RFC 3339"`
	LastRun    string          `json:"last_run,omitempty" jsonschema:"how its last run ended, while it does not run"`
	Workspaces []workspaceInfo `json:"workspaces,omitempty" jsonschema:"repositories of the host that went into it"`
	Console    string          `json:"console,omitempty" jsonschema:"the last lines of its console, when it is in state error"`
	beside
}

type workspaceInfo struct {
	GuestPath  string `json:"guest_path" jsonschema:"directory in the VM; commands run in the first one by default"`
	HostPath   string `json:"host_path" jsonschema:"the repository of the host"`
	Branch     string `json:"branch,omitempty" jsonschema:"the branch that it began with in the VM"`
	Head       string `json:"head,omitempty" jsonschema:"the commit that it began with in the VM"`
	PreparedAt string `json:"prepared_at" jsonschema:"when it went in, RFC 3339"`
}

func infoOf(vm banger.VM, user string) vmInfo {
	spec := vm.Spec
	info := vmInfo{Name: spec.Name, ID: string(vm.ID), State: string(vm.State), Error: vm.LastError, Image: spec.Image, VCPU: spec.VCPU, MemoryMiB: spec.MemoryMiB,
		DiskMiB: spec.DiskBytes >> 20, Net: spec.Net.Or(banger.NetFull).String(), User: or(or(user, spec.User), "root"), CreatedAt: moment(vm.CreatedAt)}
	if vm.Exit != nil && vm.State != banger.StateRunning {
		info.LastRun = string(vm.Exit.Cause)
		if vm.Exit.Detail != "" {
			info.LastRun += ": " + vm.Exit.Detail
		}
		if vm.State == banger.StateError {
			info.Console = vm.Exit.Console
		}
	}
	for _, ws := range vm.Workspaces {
		info.Workspaces = append(info.Workspaces, workspaceInfo{ws.GuestPath, ws.HostPath, ws.Branch, ws.Head, moment(ws.PreparedAt)})
	}
	return info
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// again gives a VM as it is now.
func (c *call) again(ctx context.Context, id banger.VMID) (vmInfo, error) {
	vm, err := c.Show(ctx, string(id))
	if err != nil {
		return vmInfo{}, err
	}
	info := infoOf(vm.VM, vm.User)
	info.beside = c.told()
	return info, nil
}

type createIn struct {
	Name      string            `json:"name,omitempty" jsonschema:"name of the VM: lower-case letters, digits and hyphens (default: one is made up)"`
	Image     string            `json:"image,omitempty" jsonschema:"what it is made from: a reference such as alpine:3 of a public registry (default: the user's default image, Debian with common tools)"`
	VCPU      int               `json:"vcpu,omitempty" jsonschema:"number of virtual processors (default: as the user has configured)"`
	MemoryMiB int               `json:"memory_mib,omitempty" jsonschema:"memory in MiB, at least 64 (default: as the user has configured)"`
	DiskMiB   int64             `json:"disk_mib,omitempty" jsonschema:"size of its disk in MiB, at least 64; it takes up what is written (default: as the user has configured)"`
	Net       string            `json:"net,omitempty" jsonschema:"what its network reaches: full (the internet, never the host), none, or allow=RULE,... with rules such as github.com or *.pypi.org:443 (default: as the user has configured)"`
	Env       map[string]string `json:"env,omitempty" jsonschema:"environment variables for every command in it"`
	Path      string            `json:"path,omitempty" jsonschema:"path on the host of a repository, or of a directory in none, that goes in"`
	Branch    string            `json:"branch,omitempty" jsonschema:"a new branch for the repository in the VM (default: the one that is checked out on the host)"`
	GuestPath string            `json:"guest_path,omitempty" jsonschema:"where the repository goes in the VM (default: /root/repo)"`
	Untracked bool              `json:"include_untracked,omitempty" jsonschema:"files that git neither tracks nor ignores go in, too"`
	NoProject bool              `json:"no_project,omitempty" jsonschema:"pass over what the repository's .banger.toml and devcontainer.json say"`
}

func (s *Server) vmTools() {
	add(s, about{name: "vm_create", title: "Create and start a VM", open: true, host: "reads the repository; makes files of banger's own",
		text: `Make a VM and start it, with a repository of the host in it if a path is given: a clone with the edits of its work tree. Returns when the VM is
ready for commands; the first VM of an image may take minutes. The VM stays until vm_delete, or as the server was told.
What the repository wants of its VM (.banger.toml, devcontainer.json) is followed. If that needs the user's consent this fails and names the
command by which only the user can give it; no_project goes without.`}, create)
	add(s, about{name: "vm_list", title: "List VMs", reads: true, repeatable: true, host: "nothing", text: "List the VMs that may be used here: those that agents have made, and those that the user has named."}, list)
	add(s, about{name: "vm_show", title: "Show a VM", reads: true, repeatable: true, host: "nothing", text: "Show one VM: state, sizes, network policy, repositories, and how its last run ended."},
		func(ctx context.Context, c *call, in ref) (vmInfo, error) {
			vm, err := c.vm(ctx, in.VM)
			if err != nil {
				return vmInfo{}, err
			}
			return infoOf(vm.VM, vm.User), nil
		})
	add(s, about{name: "vm_start", title: "Start a VM", repeatable: true, host: "nothing", text: "Start a stopped VM and wait until it is ready for commands. What is on its disk is still there. A VM that runs is left alone."},
		func(ctx context.Context, c *call, in ref) (vmInfo, error) {
			vm, err := c.vm(ctx, in.VM)
			if err == nil {
				err = c.Start(ctx, string(vm.ID))
			}
			if err != nil {
				return vmInfo{}, err
			}
			return c.again(ctx, vm.ID)
		})
	add(s, about{name: "vm_stop", title: "Stop a VM", destroys: true, repeatable: true, host: "nothing", text: "Stop a VM: its programs end, its disk stays. It is asked to power off, and switched off when it has not done so in time. A VM that does not run is left alone."}, stop)
	add(s, about{name: "vm_delete", title: "Delete a VM", destroys: true, host: "keeps unsaved work: a bundle of banger's own and refs/banger/... in the repository",
		text: `Remove a VM with its disk. Commits and changes in repositories that went in are kept when the host does not have them: in a bundle, and as
refs/banger/... of the repository (see autosave_list). Everything else on the disk is gone. A VM that runs is only deleted with force.`}, remove)
}

func create(ctx context.Context, c *call, in createIn) (vmInfo, error) {
	vm := NewVM{NoProject: in.NoProject}
	vm.Name, vm.Image, vm.Env, vm.Labels, vm.Remove = in.Name, in.Image, in.Env, map[string]string{Label: Made}, c.cfg.Remove
	wish := project.Settings{Image: in.Image, VCPU: project.Size{N: int64(in.VCPU)}, Memory: project.Size{N: int64(in.MemoryMiB) << 20}, Disk: project.Size{N: in.DiskMiB << 20}}
	const most = 1 << 24 // MiB: more than any VM can have, and no overflow
	if in.VCPU < 0 || in.MemoryMiB < 0 || in.MemoryMiB > most || in.DiskMiB < 0 || in.DiskMiB > most {
		return vmInfo{}, banger.Invalidf("vcpu, memory_mib and disk_mib are not negative, and at most %d MiB", most)
	}
	if in.VCPU > 0 {
		vm.VCPU = &in.VCPU
	}
	if in.MemoryMiB > 0 {
		vm.MemoryMiB = &in.MemoryMiB
	}
	if in.DiskMiB > 0 {
		vm.DiskBytes = &wish.Disk.N
	}
	var err error
	if in.Net != "" {
		if wish.Net, err = banger.ParseNetPolicy(in.Net); err != nil {
			return vmInfo{}, err
		}
	}
	if vm.Net.Set, err = c.allowed(ctx, wish, c.cfg.Net); err != nil {
		return vmInfo{}, err
	}
	switch {
	case in.Path != "":
		repo := Repository{Branch: in.Branch, GuestPath: in.GuestPath, Untracked: in.Untracked}
		if repo.Path, err = c.repository(ctx, in.Path); err != nil {
			return vmInfo{}, err
		}
		vm.Repository = &repo
	case in.Branch != "" || in.GuestPath != "" || in.Untracked || in.NoProject:
		return vmInfo{}, banger.Invalidf("branch, guest_path, include_untracked and no_project are about a repository, and no path is given")
	}
	made, err := c.Create(ctx, vm)
	if err != nil {
		return vmInfo{}, err
	}
	c.Server.mu.Lock()
	c.made = append(c.made, made.ID)
	c.Server.mu.Unlock()
	return c.again(ctx, made.ID)
}

type listOut struct {
	VMs    []vmInfo `json:"vms" jsonschema:"the oldest first"`
	Others int      `json:"others" jsonschema:"VMs of the user that may not be used here"`
}

func list(ctx context.Context, c *call, _ struct{}) (listOut, error) {
	all, err := c.List(ctx)
	var out listOut
	for _, vm := range all {
		if c.mayUse(vm) {
			out.VMs = append(out.VMs, infoOf(vm, ""))
		} else {
			out.Others++
		}
	}
	return out, err
}

type stopIn struct {
	ref
	Timeout int `json:"timeout_seconds,omitempty" jsonschema:"seconds that the VM gets to power off (default: 10, or 40 without KVM)"`
}

func stop(ctx context.Context, c *call, in stopIn) (vmInfo, error) {
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return vmInfo{}, err
	}
	if in.Timeout < 0 || in.Timeout > maxTimeout {
		return vmInfo{}, banger.Invalidf("timeout_seconds %d: want 1 to %d", in.Timeout, maxTimeout)
	}
	if err := c.Stop(ctx, string(vm.ID), time.Duration(in.Timeout)*time.Second); err != nil {
		return vmInfo{}, err
	}
	return c.again(ctx, vm.ID)
}

type deleteIn struct {
	ref
	Force bool `json:"force,omitempty" jsonschema:"delete it even while it runs"`
}

type deleteOut struct {
	Name  string     `json:"name" jsonschema:"the VM that is gone"`
	Saved []saveInfo `json:"saved,omitempty" jsonschema:"work of it that was kept"`
	beside
}

func remove(ctx context.Context, c *call, in deleteIn) (deleteOut, error) {
	vm, err := c.vm(ctx, in.VM)
	if err == nil {
		err = c.Delete(ctx, string(vm.ID), in.Force)
	}
	if err != nil {
		return deleteOut{}, err
	}
	out := deleteOut{Name: vm.Spec.Name, beside: c.told()}
	saves, err := c.Autosaves(ctx)
	if err != nil {
		c.note(fmt.Sprintf("the VM is deleted; what was kept of it is not to be had: %v", err))
		out.beside = c.told()
		return out, nil
	}
	for _, save := range saves {
		if save.VMID == vm.ID {
			out.Saved = append(out.Saved, saveOf(save))
		}
	}
	return out, nil
}
