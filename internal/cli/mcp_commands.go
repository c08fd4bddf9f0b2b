package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/internal/machine"
	"banger/internal/mcp"
	"banger/internal/project"
	"banger/internal/workspace"
)

// commands are banger's commands for one use of a tool of "banger mcp": nobody sits at a terminal, and what they show beside results
// goes to the listener.
type commands struct{ *app }

func (a *app) commands(l mcp.Listener) mcp.Commands {
	return commands{&app{Streams: Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}, build: a.build,
		signals: &signals{handle: func(os.Signal) {}}, now: a.now, json: true, listener: l}}
}

func (c commands) Needs(ctx context.Context, wish project.Settings, limit banger.NetPolicy) ([]project.Need, banger.NetPolicy, error) {
	d, err := c.dial(ctx)
	if err != nil {
		return nil, limit, err
	}
	defer d.Close()
	defaults, err := d.Settings(ctx)
	if err != nil {
		return nil, limit, err
	}
	host, err := hostOf(defaults)
	if err != nil {
		return nil, limit, err
	}
	host.Net = limit.Or(host.Net)
	return wish.Needs("", host), host.Net, nil
}

func (c commands) Create(ctx context.Context, vm mcp.NewVM) (api.VMDetail, error) {
	flags := runFlags{req: vm.CreateRequest, remove: vm.Remove, spec: specFlags{cmd: &cobra.Command{}}, plan: planFlags{cmd: &cobra.Command{}},
		project: projectFlags{none: vm.NoProject}, exec: execFlags{env: assignments(vm.Env), wait: waitForSystem}}
	said := &tail{}
	c.Err = said
	var paths []string
	if repo := vm.Repository; repo != nil {
		paths = []string{repo.Path}
		flags.plan = planOf(*repo)
	}
	made, _, err := c.make(ctx, paths, []string{}, &flags)
	if err != nil && len(said.text) > 0 {
		c.notice("%s", "the last lines of the repository's commands: "+string(said.text))
	}
	return made, err
}

func planOf(repo mcp.Repository) planFlags {
	return planFlags{branch: repo.Branch, untracked: repo.Untracked, guestPath: repo.GuestPath, cmd: &cobra.Command{}}
}

func assignments(env map[string]string) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.text = append(t.text, p...)
	t.text = bytes.Clone(t.text[max(0, len(t.text)-most):])
	return len(p), nil
}

func (c commands) List(ctx context.Context) ([]banger.VM, error) {
	d, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ListVMs(ctx)
}

func (c commands) Show(ctx context.Context, ref string) (api.VMDetail, error) {
	return c.show(ctx, ref)
}

func (c commands) Start(ctx context.Context, ref string) error {
	_, err := c.startVMs(ctx, []string{ref}, false, &stages{})
	return err
}

func (c commands) Stop(ctx context.Context, ref string, timeout time.Duration) error {
	return c.stopVMs(ctx, []string{ref}, timeout)
}

func (c commands) Delete(ctx context.Context, ref string, force bool) error {
	return c.deleteVMs(ctx, []string{ref}, force, false)
}

func (c commands) Exec(ctx context.Context, ref string, cmd mcp.Command) (int, error) {
	c.In, c.Out, c.Err = cmd.Stdin, cmd.Stdout, cmd.Stderr
	err := c.execIn(ctx, ref, cmd.Argv, execFlags{env: assignments(cmd.Env), workdir: cmd.Dir, user: cmd.User, wait: waitForSystem})
	if exit, ok := errors.AsType[commandExit](err); ok {
		return exit.status, exit.err
	}
	return 0, err
}

func (c commands) CopyOut(ctx context.Context, ref, path string, w io.Writer) error {
	c.Out = w
	_, err := c.copyFiles(ctx, side{vm: ref, path: path}, side{stream: true}, copyFlags{follow: true})
	return err
}

func (c commands) CopyIn(ctx context.Context, ref, dir string, r io.Reader) error {
	c.In = r
	_, err := c.copyFiles(ctx, side{stream: true}, side{vm: ref, path: dir}, copyFlags{})
	return err
}

func (c commands) Ports(ctx context.Context, ref string) (machine.Ports, string, error) {
	d, err := c.dial(ctx)
	if err != nil {
		return machine.Ports{}, "", err
	}
	defer d.Close()
	status, err := d.Status(ctx)
	if err != nil {
		return machine.Ports{}, "", err
	}
	ports, err := c.portsOf(ctx, d, ref)
	return ports.Ports, status.HTTP, err
}

func (c commands) SetNet(ctx context.Context, ref string, change banger.NetChange) (banger.NetPolicy, error) {
	d, err := c.dial(ctx)
	if err != nil {
		return banger.NetPolicy{}, err
	}
	defer d.Close()
	vm, err := d.SetNet(ctx, ref, change)
	return vm.Spec.Net, err
}

func (c commands) NetLog(ctx context.Context, ref string, each func(banger.NetEvent) error) error {
	vm, err := c.show(ctx, ref)
	if err != nil {
		return err
	}
	return machine.Client{Socket: vm.MachineSocket}.NetLog(ctx, false, each)
}

func (c commands) CheckNet(ctx context.Context, policy banger.NetPolicy, targets []string) (list []mcp.Check, err error) {
	results, err := checkTargets(ctx, policy, targets)
	for _, r := range results {
		check := mcp.Check{Target: r.Target, Allowed: r.Allowed, Reason: r.Reason}
		for _, addr := range r.Addrs {
			check.Addresses = append(check.Addresses, addr.String())
		}
		list = append(list, check)
	}
	return list, err
}

func (c commands) Prepare(ctx context.Context, ref string, repo mcp.Repository, force bool) error {
	_, _, err := c.prepareIn(ctx, ref, []string{repo.Path}, planOf(repo), force)
	return err
}

func (c commands) Status(ctx context.Context, ref, guestPath string) (workspace.Status, error) {
	f, err := c.fetch(ctx, ref, guestPath, 0)
	if err != nil {
		return workspace.Status{}, err
	}
	defer f.Close()
	return f.Status(ctx)
}

func (c commands) Diff(ctx context.Context, ref, guestPath string, w io.Writer) error {
	f, err := c.fetch(ctx, ref, guestPath, maxUntracked)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Patch(ctx, "", w, false)
}

func (c commands) Pull(ctx context.Context, ref, guestPath string) (map[string]string, []string, error) {
	f, err := c.fetch(ctx, ref, guestPath, maxUntracked)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	done, err := c.bring(ctx, f, pullFlags{})
	return done.Refs, done.Notices, err
}

func (c commands) Push(ctx context.Context, ref, guestPath string) (workspace.Pushed, error) {
	vm, err := c.show(ctx, ref)
	if err != nil {
		return workspace.Pushed{}, err
	}
	if vm.State != banger.StateRunning {
		return workspace.Pushed{}, notRunning(vm.Spec.Name, vm.State)
	}
	_, pushed, err := c.pushTo(ctx, vm, nil, guestPath)
	return pushed, err
}

func (c commands) Autosaves(ctx context.Context) ([]banger.Autosave, error) {
	d, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Autosaves(ctx)
}
