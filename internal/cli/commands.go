package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/api"
	"banger/internal/atomicfile"
	"banger/internal/machine"
	"banger/internal/project"
	"banger/internal/statedir"
)

// startCommands is what a VM's directory keeps for later starts.
type startCommands struct {
	Commands []project.Command `json:"commands"`
	Dir      string            `json:"dir"`   // in the VM
	Boots    int               `json:"boots"` // of the VM, when they were run last
}

func (s startCommands) write(vm api.VMDetail) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(statedir.VMDir{Path: vm.Dir}.StartCommands(), text, 0o600)
}

// setUp does what a repository wants done in its new VM: directories, commands that run once, commands that run at each start.
func (a *app) setUp(ctx context.Context, vm api.VMDetail, w *wish, dest string) error {
	s := w.Settings
	if err := a.makeVolumes(ctx, vm, s.Volumes); err != nil {
		return err
	}
	dir := or(w.folder, dest)
	if len(s.Start) > 0 {
		if err := (startCommands{Commands: s.Start, Dir: dir, Boots: vm.Boots}).write(vm); err != nil {
			return err
		}
	}
	if err := a.runCommands(ctx, vm, s.Create, dir); err != nil {
		return err
	}
	return a.runCommands(ctx, vm, s.Start, dir)
}

// setUpNew is setUp within "vm run". When something fails a person gets the shell all the same, to look at it.
func (a *app) setUpNew(ctx context.Context, vm api.VMDetail, w *wish, plans []planned, flags *runFlags, argv []string) error {
	s := w.Settings
	if len(plans) == 0 || len(s.Volumes)+len(s.Create)+len(s.Start) == 0 {
		return nil
	}
	if err := a.awaitInit(ctx, vm, flags.exec.wait); err != nil {
		return err
	}
	flags.exec.wait = waitForAgent // it has been waited for
	err := a.setUp(ctx, vm, w, plans[0].dest)
	switch {
	case err == nil:
		return nil
	case argv == nil && !flags.detach && !errors.Is(err, banger.ErrInterrupted):
		a.showError(err)
		return nil
	case !flags.remove:
		a.notice("vm %s runs (away with it: banger vm delete --force %s)", vm.Spec.Name, vm.Spec.Name)
	}
	return streamError{err}
}

// claimStart gives the commands of a start that are still to be run, to one client of several.
func claimStart(vm api.VMDetail) (s startCommands, err error) {
	dir, err := os.Open(vm.Dir)
	if err != nil {
		return s, err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return s, fmt.Errorf("lock %s: %w", vm.Dir, err)
	}
	text, err := os.ReadFile(statedir.VMDir{Path: vm.Dir}.StartCommands())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil || s.Boots == vm.Boots {
		return startCommands{}, err
	}
	s.Boots = vm.Boots
	return s, s.write(vm)
}

// started runs the commands that a repository wants run at each start of its VM, once for each.
func (a *app) started(ctx context.Context, vm api.VMDetail) error {
	s, err := claimStart(vm)
	if err != nil || len(s.Commands) == 0 {
		return err
	}
	if err := a.awaitInit(ctx, vm, waitForSystem); err != nil {
		return err
	}
	return a.runCommands(ctx, vm, s.Commands, s.Dir)
}

// startedAll is started for VMs one after the other. What fails of one keeps no other from it.
func (a *app) startedAll(ctx context.Context, vms []api.VMDetail) error {
	var failed failures
	for _, vm := range vms {
		if err := a.started(ctx, vm); err != nil {
			failed = append(failed, &banger.Error{Op: "vm", Subject: vm.Spec.Name, Err: err})
		}
	}
	if failed == nil {
		return nil
	}
	return failed
}

// runCommands runs a repository's commands in its VM, one after the other, and shows what they write on standard error. The first that
// fails ends it.
func (a *app) runCommands(ctx context.Context, vm api.VMDetail, commands []project.Command, dir string) error {
	for _, cmd := range commands {
		a.notice("%s: %s", cmd.Name, cmd)
		out := &safeWriter{w: a.Err}
		result, err := a.machine(vm).Exec(ctx, banger.ExecRequest{Argv: cmd.Args(), HomeDir: dir}, machine.Stdio{Stdout: out, Stderr: out})
		out.Close()
		switch {
		case errors.Is(err, banger.ErrUnavailable):
			return a.whyGone(vm, err)
		case err != nil:
			return err
		case result.Error != "":
			err = errors.New(result.Error)
		case result.ExitStatus() != 0:
			err = fmt.Errorf("it ended with status %d", result.ExitStatus())
		default:
			continue
		}
		return &banger.Error{Kind: banger.ErrUnavailable, Op: cmd.Name, Err: err,
			Hint: fmt.Sprintf("look into the VM: banger vm shell %s; to go without: --no-project", vm.Spec.Name)}
	}
	return nil
}
