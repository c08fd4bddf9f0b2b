package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/channel"
	"banger/internal/filesync"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/transfer"
)

// Supervisors runs banger-machine, one per VM, and speaks to it.
type Supervisors struct {
	Dir     statedir.Dir
	Program string // path of banger-machine
}

// Launch writes the machine's configuration and starts its supervisor.
func (s Supervisors) Launch(ctx context.Context, cfg machine.Config) error {
	dir := s.Dir.VM(cfg.ID)
	if _, supervisor, vmm, err := s.Handles(cfg.ID); err != nil || supervisor || vmm {
		return errors.Join(err, &banger.Error{Kind: banger.ErrConflict, Op: "launch vm", Subject: string(cfg.ID), Err: errors.New("processes of its last run live")})
	}
	for _, path := range []string{dir.ExitRecord(), dir.Handles()} { // of the run before, which is proved to have ended
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := s.configure(cfg); err != nil {
		return err
	}
	return s.Relaunch(ctx, cfg.ID)
}

// configure writes what a supervisor is told, also one that takes the run over.
func (s Supervisors) configure(cfg machine.Config) error {
	dir := s.Dir.VM(cfg.ID)
	text, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	return banger.SpaceError(atomicfile.Write(dir.MachineConfig(), text, 0o600), dir.Path)
}

// Relaunch starts a supervisor when no other is left. Its socket listens before it does, so whoever connects waits instead of failing.
func (s Supervisors) Relaunch(ctx context.Context, id banger.VMID) error {
	dir := s.Dir.VM(id)
	handles, _, _, err := s.Handles(id)
	if err != nil {
		return err
	}
	if err := end(ctx, handles.Supervisor, 0); err != nil {
		return fmt.Errorf("end the supervisor that does not answer: %w", err)
	}
	if s.Damage(id) != nil && handles.VMM.PID != 0 { // the next one reads there what it takes over
		if err := machine.WriteHandles(dir, handles); err != nil {
			return fmt.Errorf("write down the living VMM: %w", err)
		}
	}
	listener, err := machine.Listen(dir.MachineSocket())
	if err != nil {
		return err
	}
	defer listener.Close()
	socket, err := listener.File()
	if err != nil {
		return err
	}
	defer socket.Close()
	log, err := os.OpenFile(dir.MachineLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	_, err = proc.Detach(proc.Spec{Path: s.Program, Args: []string{"--config", dir.MachineConfig()}, Dir: "/", Log: log,
		ExtraFiles: []*os.File{socket}, Scope: "banger-" + string(id) + ".scope"})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Program, err)
	}
	return nil
}

func (s Supervisors) client(id banger.VMID) machine.Client {
	return machine.Client{Socket: s.Dir.VM(id).MachineSocket()}
}

// Status asks the supervisor.
func (s Supervisors) Status(ctx context.Context, id banger.VMID) (machine.Status, error) {
	return s.client(id).Status(ctx)
}

// Ready waits until the guest is ready or the run has ended.
func (s Supervisors) Ready(ctx context.Context, id banger.VMID) (machine.Status, error) {
	return s.client(id).Ready(ctx)
}

// Stats asks the supervisor what its run uses.
func (s Supervisors) Stats(ctx context.Context, id banger.VMID) (machine.Stats, error) {
	return s.client(id).Stats(ctx)
}

// Wait waits until the run has ended.
func (s Supervisors) Wait(ctx context.Context, id banger.VMID) (banger.Exit, error) {
	return s.client(id).Wait(ctx)
}

// Shutdown ends the run.
func (s Supervisors) Shutdown(ctx context.Context, id banger.VMID, timeout time.Duration) (banger.Exit, error) {
	return s.client(id).Shutdown(ctx, timeout)
}

// Signal sends the VMM a signal by its supervisor.
func (s Supervisors) Signal(ctx context.Context, id banger.VMID, sig syscall.Signal) error {
	return s.client(id).Signal(ctx, sig)
}

// Rename changes the machine's configuration and tells the guest by its supervisor.
func (s Supervisors) Rename(ctx context.Context, id banger.VMID, name string) error {
	if err := s.reconfigure(id, func(cfg *machine.Config) { cfg.Name = name }); err != nil {
		return err
	}
	return s.client(id).Rename(ctx, name)
}

// Sync speaks to the guest's agent by its supervisor.
func (s Supervisors) Sync(ctx context.Context, id banger.VMID, files []filesync.File) (transfer.Synced, error) {
	conn, err := s.client(id).Connect(ctx, channel.PortFiles)
	if err != nil {
		return transfer.Synced{}, err
	}
	return transfer.BringSync(ctx, conn.(transfer.Conn), filesync.Source(files))
}

// SetNet changes the machine's configuration, for the next supervisor, and what this one allows.
func (s Supervisors) SetNet(ctx context.Context, id banger.VMID, policy banger.NetPolicy) error {
	if err := s.reconfigure(id, func(cfg *machine.Config) { cfg.Net = policy }); err != nil {
		return err
	}
	return s.client(id).SetNet(ctx, policy)
}

func (s Supervisors) reconfigure(id banger.VMID, change func(*machine.Config)) error {
	text, err := os.ReadFile(s.Dir.VM(id).MachineConfig())
	if err != nil {
		return err
	}
	var cfg machine.Config
	if err := json.Unmarshal(text, &cfg); err != nil || cfg.ID != id {
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "configuration of vm", Subject: string(id), Err: err}
	}
	change(&cfg)
	return s.configure(cfg)
}

// Handles reads handles.json and looks which of its processes live. When that can't be read the processes are looked for in /proc: one
// of each kind that is found there lives.
func (s Supervisors) Handles(id banger.VMID) (handles machine.Handles, supervisor, vmm bool, err error) {
	handles, err = machine.ReadHandles(s.Dir.VM(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return handles, false, false, nil
	case errors.Is(err, banger.ErrCorrupt):
		if handles, err = machine.FindHandles(s.Dir, id); err != nil {
			return handles, false, false, err
		}
	}
	return handles, handles.Supervisor.Alive(), handles.VMM.Alive(), err
}

// Damage says why handles.json can't be read. Errors: ErrCorrupt.
func (s Supervisors) Damage(id banger.VMID) error {
	if _, err := machine.ReadHandles(s.Dir.VM(id)); errors.Is(err, banger.ErrCorrupt) {
		return err
	}
	return nil
}

// ExitRecord reads exit.json.
func (s Supervisors) ExitRecord(id banger.VMID) (*banger.Exit, error) {
	exit, err := machine.ReadExit(s.Dir.VM(id).ExitRecord())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &exit, nil
}

// Finish proves the death of supervisor and VMM. The supervisor goes first: while it lives it may still start a VMM (the retry of a
// boot), and its end tells which one is the last. A record of them that can't be read is removed then.
func (s Supervisors) Finish(ctx context.Context, id banger.VMID, grace time.Duration) error {
	handles, supervisor, vmm, err := s.Handles(id)
	for first := true; err == nil && (first || supervisor || vmm); first = false { // /proc may know more than one of each kind
		if !supervisor {
			// One that was started this instant has not recorded itself yet, but its socket takes connections from its birth on.
			if _, err := s.client(id).Shutdown(ctx, killAtOnce); ctx.Err() != nil {
				return fmt.Errorf("supervisor: %w", err)
			}
			if handles, _, _, err = s.Handles(id); err != nil {
				return err
			}
		}
		if err := end(ctx, handles.Supervisor, grace); err != nil {
			return fmt.Errorf("supervisor: %w", err)
		}
		if handles, _, _, err = s.Handles(id); err != nil {
			return err
		}
		if err := end(ctx, handles.VMM, 0); err != nil {
			return fmt.Errorf("VMM: %w", err)
		}
		handles, supervisor, vmm, err = s.Handles(id)
	}
	if err == nil && s.Damage(id) != nil {
		err = os.Remove(s.Dir.VM(id).Handles())
	}
	return err
}

// end waits for a process up to grace, then kills it and waits for its death.
func end(ctx context.Context, process proc.Handle, grace time.Duration) error {
	if process.PID == 0 || !process.Alive() {
		return nil
	}
	if grace > 0 {
		waiting, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if process.Wait(waiting) == nil {
			return nil
		}
	}
	return process.Kill(ctx)
}
