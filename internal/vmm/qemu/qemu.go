// Package qemu runs machines by QEMU's microvm, with KVM or by emulation.
//
// args.go and confinement.go turn a spec into a command line and a domain, and are pure; qmp.go speaks QEMU's machine
// protocol; machine.go is a running QEMU, exit.go says how it ended; probe.go finds out whether KVM works here.
package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/undo"
	"banger/internal/vmm"
)

// Program is QEMU's name in PATH.
const Program = "qemu-system-x86_64"

// cleanupTimeout bounds the end of a QEMU whose start failed.
const cleanupTimeout = 10 * time.Second

// Config wires a Driver.
type Config struct {
	Shim string       // path of a program whose main begins with proc.MaybeConfineMain: it confines QEMU
	Log  *slog.Logger // optional: discards
}

// Driver starts QEMU. It implements vmm.Driver.
type Driver struct{ cfg Config }

// New makes a Driver. It does no I/O.
func New(cfg Config) *Driver {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Driver{cfg}
}

// Name is "qemu".
func (d *Driver) Name() string { return "qemu" }

// sockets are the ends of QEMU's four sockets.
type sockets struct {
	listeners                          []*os.File // for QEMU, in the order of its descriptors
	qmp, console, channelConn, network net.Conn
}

func socketPaths(dir statedir.VMDir) []string {
	return []string{dir.QMPSocket(), dir.ConsoleSocket(), dir.ChannelSocket(), dir.NetworkSocket()}
}

// listen makes the sockets that QEMU will own. They listen when it returns, so that nobody waits for QEMU to make them.
func (s *sockets) listen(dir statedir.VMDir) error {
	for _, path := range socketPaths(dir) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		listener.SetUnlinkOnClose(false)
		file, err := listener.File()
		if err := errors.Join(err, os.Chmod(path, 0o600), listener.Close()); err != nil {
			return err
		}
		s.listeners = append(s.listeners, file)
	}
	return nil
}

// connect connects to the sockets. QMP comes last: QEMU takes connections in this order, so when it answers there the
// console and the channel are connected too.
func (s *sockets) connect(ctx context.Context, dir statedir.VMDir) error {
	var d net.Dialer
	for _, c := range []struct {
		path string
		conn *net.Conn
	}{{dir.ConsoleSocket(), &s.console}, {dir.ChannelSocket(), &s.channelConn}, {dir.NetworkSocket(), &s.network}, {dir.QMPSocket(), &s.qmp}} {
		conn, err := d.DialContext(ctx, "unix", c.path)
		if err != nil {
			return err
		}
		*c.conn = conn
	}
	return nil
}

func (s *sockets) closeListeners() {
	for _, f := range s.listeners {
		f.Close()
	}
	s.listeners = nil
}

func (s *sockets) close() error {
	s.closeListeners()
	for _, c := range []net.Conn{s.qmp, s.console, s.channelConn, s.network} {
		if c != nil {
			c.Close()
		}
	}
	return nil
}

func removeSockets(dir statedir.VMDir) error {
	var errs []error
	for _, path := range socketPaths(dir) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Start implements vmm.Driver.
func (d *Driver) Start(ctx context.Context, spec vmm.Spec, started func(proc.Handle) error) (_ vmm.Machine, err error) {
	var rollback undo.Stack
	defer func() {
		if err != nil {
			failed := &banger.Error{Op: "start QEMU for vm", Subject: string(spec.ID), Err: errors.Join(err, rollback.Run())}
			if ctx.Err() != nil {
				failed.Kind = banger.ErrInterrupted
			}
			err = failed
		}
	}()
	program, err := proc.LookPath(spec.Program)
	if err != nil {
		return nil, err
	}
	spec.Program = program
	dir := statedir.VMDir{Path: spec.Dir}
	var s sockets
	rollback.Push(func() error { return removeSockets(dir) })
	rollback.Push(s.close)
	if err := s.listen(dir); err != nil {
		return nil, err
	}
	if err := s.connect(ctx, dir); err != nil {
		return nil, err
	}
	p, err := d.launch(spec, &s)
	if err != nil {
		return nil, err
	}
	rollback.Push(func() error { return end(p.Handle) })
	if err := started(p.Handle); err != nil {
		return nil, fmt.Errorf("record the process: %w", err)
	}
	m := newMachine(dir, p.Handle, d.cfg.Log.With("vm", spec.ID))
	m.process = p
	if err := m.open(ctx, &s); err != nil {
		if ctx.Err() == nil {
			err = p.why(err)
		}
		return nil, err
	}
	rollback.Push(func() error { return m.server.Close() })
	if err := m.qmp.do(ctx, "cont"); err != nil {
		return nil, err
	}
	m.run()
	return m, nil
}

// process is a QEMU that we started, with what it writes to its standard error.
type process struct {
	*proc.Process
	words *lastWords
}

// launch starts QEMU and hands the listeners over.
func (d *Driver) launch(spec vmm.Spec, s *sockets) (*process, error) {
	words, log, err := newLastWords()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	defer s.closeListeners()
	path, args := proc.ConfinedCommand(d.cfg.Shim, Confinement(spec), append([]string{spec.Program}, Args(spec)...)...)
	p, err := proc.Start(proc.Spec{Path: path, Args: args, Dir: "/", Env: []string{}, ExtraFiles: s.listeners, Log: log})
	if err != nil {
		return nil, err
	}
	return &process{p, words}, nil
}

// why is the error of a QEMU that did not answer: what it said before it died, or else the failed conversation. One that
// lives is killed.
func (p *process) why(err error) error {
	if killErr := end(p.Handle); killErr != nil {
		return errors.Join(err, killErr)
	}
	var exit *proc.ExitError
	if errors.As(p.Exit(), &exit) {
		exit.Program, exit.Stderr = "QEMU", p.words.String()
		err = exit
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Err: err}
}

func end(h proc.Handle) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	return h.Kill(ctx)
}

// Attach implements vmm.Driver. A QEMU whose guest was never let run is let run.
func (d *Driver) Attach(ctx context.Context, spec vmm.Spec, h proc.Handle) (_ vmm.Machine, err error) {
	fail := func(kind, err error) (vmm.Machine, error) {
		return nil, &banger.Error{Kind: kind, Op: "take over QEMU of vm", Subject: string(spec.ID), Err: err}
	}
	if !h.Alive() {
		return fail(banger.ErrNotFound, os.ErrProcessDone)
	}
	dir := statedir.VMDir{Path: spec.Dir}
	var s sockets
	if err := s.connect(ctx, dir); err != nil {
		s.close()
		return fail(banger.ErrUnavailable, err)
	}
	m := newMachine(dir, h, d.cfg.Log.With("vm", spec.ID))
	if err := m.open(ctx, &s); err != nil {
		s.close()
		return fail(nil, err)
	}
	if err := m.resume(ctx); err != nil {
		m.server.Close()
		s.close()
		return fail(nil, err)
	}
	m.run()
	return m, nil
}

// resume lets the guest run if a supervisor died between the start of QEMU and its "cont".
func (m *machine) resume(ctx context.Context) error {
	answer, err := m.qmp.ask(ctx, "query-status")
	if err != nil {
		return err
	}
	var status struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(answer, &status); err != nil {
		return fmt.Errorf("%w: %w", banger.ErrCorrupt, err)
	}
	if status.Status == "prelaunch" {
		return m.qmp.do(ctx, "cont")
	}
	return nil
}

// open begins to talk on the sockets, which the machine owns from then on when it succeeds.
func (m *machine) open(ctx context.Context, s *sockets) error {
	client, err := newQMP(ctx, s.qmp, m.record)
	if err != nil {
		return err
	}
	m.qmp, m.console, m.network = client, &console{conn: s.console}, s.network
	m.server, err = channel.Serve(s.channelConn, m.dir.GuestSocket())
	return err
}
