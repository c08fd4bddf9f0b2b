package vmmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/channel"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/undo"
	"banger/internal/vmm"
)

// Memory is a driver whose guests are goroutines of this process. All else is real: a process that stands for the VMM and
// can be killed, the sockets, the channel's hello and multiplexer. A VMM lives on when its Machine is dropped, so Attach
// works within this process.
type Memory struct {
	// Boot is a guest: it runs in a goroutine of its own from the start of a machine. Nil: a [Guest].
	Boot func(*MemoryGuest)

	mu     sync.Mutex
	guests map[proc.Handle]*MemoryGuest // of processes that live
}

// MemoryGuest is the machine as its guest sees it.
type MemoryGuest struct {
	Spec vmm.Spec

	handle  proc.Handle
	channel chan net.Conn // the host's end of the channel has been connected
	button  chan struct{}
	typed   chan []byte
	gone    chan struct{} // closed when the VMM's process is gone

	mu      sync.Mutex
	cause   banger.ExitCause // what the guest did; "" nothing
	console *io.PipeWriter   // nil: nobody is attached, output is lost
	network net.Conn         // nil: nobody is attached
}

// Network is the guest's end of the stream of frames with the host that is attached now.
func (g *MemoryGuest) Network() net.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.network
}

// Channel waits until a host connects to the channel and gives the guest's end. It gives nil when the machine has ended.
func (g *MemoryGuest) Channel() net.Conn {
	select {
	case conn := <-g.channel:
		return conn
	case <-g.gone:
		return nil
	}
}

// Button receives when the power button is pressed.
func (g *MemoryGuest) Button() <-chan struct{} { return g.button }

// Typed receives what is typed on the console.
func (g *MemoryGuest) Typed() <-chan []byte { return g.typed }

// Gone is closed when the machine has ended.
func (g *MemoryGuest) Gone() <-chan struct{} { return g.gone }

// Write prints on the console.
func (g *MemoryGuest) Write(p []byte) (int, error) {
	g.mu.Lock()
	console := g.console
	g.mu.Unlock()
	if console != nil {
		console.Write(p) // an error means that nobody listens any more
	}
	return len(p), nil
}

// PowerOff, Reboot and Panic end the machine.
func (g *MemoryGuest) PowerOff() { g.end(banger.ExitPowerOff) }
func (g *MemoryGuest) Reboot()   { g.end(banger.ExitReboot) }
func (g *MemoryGuest) Panic()    { g.end(banger.ExitPanic) }

func (g *MemoryGuest) end(cause banger.ExitCause) {
	g.mu.Lock()
	g.cause = cause
	g.mu.Unlock()
	g.handle.Kill(context.Background())
}

// bootTestGuest is a [Guest] whose console greets.
func bootTestGuest(g *MemoryGuest) {
	guest := Guest{
		Print:    func(text string) { g.Write([]byte(text + "\r\n")) },
		PowerOff: g.PowerOff, Reboot: g.Reboot, Panic: g.Panic,
		Card: func() (io.ReadWriteCloser, error) { return memoryCard{g.Network()}, nil },
	}
	guest.Print(Greeting)
	for conn := g.Channel(); conn != nil; conn = g.Channel() {
		guest.Serve(conn)
	}
}

// memoryCard takes frames out of their stream and puts them into it.
type memoryCard struct{ net.Conn }

func (c memoryCard) Read(p []byte) (int, error) {
	frame, err := readFrame(c.Conn)
	return copy(p, frame), err
}

func (c memoryCard) Write(p []byte) (int, error) {
	_, err := c.Conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...))
	return len(p), err
}

// Name is "memory".
func (d *Memory) Name() string { return "memory" }

// Start implements vmm.Driver.
func (d *Memory) Start(ctx context.Context, spec vmm.Spec, started func(proc.Handle) error) (_ vmm.Machine, err error) {
	var rollback undo.Stack
	defer func() {
		if err != nil {
			err = &banger.Error{Op: "start vm", Subject: string(spec.ID), Err: errors.Join(err, rollback.Run())}
		}
	}()
	for _, path := range files(spec) {
		if _, err := os.Stat(path); err != nil {
			return nil, &banger.Error{Kind: banger.ErrUnavailable, Err: err}
		}
	}
	if _, err := proc.LookPath(spec.Program); err != nil {
		return nil, err
	}
	p, err := proc.Start(proc.Spec{Path: "sleep", Args: []string{"infinity"}, Dir: "/"})
	if err != nil {
		return nil, err
	}
	rollback.Push(func() error { return p.Handle.Kill(context.Background()) })
	if err := started(p.Handle); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, &banger.Error{Kind: banger.ErrInterrupted, Err: context.Cause(ctx)}
	}
	g := &MemoryGuest{Spec: spec, handle: p.Handle, channel: make(chan net.Conn), button: make(chan struct{}, 1), typed: make(chan []byte), gone: make(chan struct{})}
	go func() {
		<-p.Done()
		close(g.gone)
		d.forget(p.Handle)
	}()
	m, err := newMemoryMachine(g)
	if err != nil {
		return nil, err
	}
	d.remember(g)
	boot := d.Boot
	if boot == nil {
		boot = bootTestGuest
	}
	go boot(g)
	return m, nil
}

func files(spec vmm.Spec) []string {
	paths := []string{spec.Kernel, spec.Initrd}
	for _, drive := range spec.Drives {
		paths = append(paths, drive.Path)
	}
	return paths
}

func (d *Memory) remember(g *MemoryGuest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.guests == nil {
		d.guests = map[proc.Handle]*MemoryGuest{}
	}
	d.guests[g.handle] = g
}

func (d *Memory) forget(h proc.Handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.guests, h)
}

// Attach implements vmm.Driver.
func (d *Memory) Attach(_ context.Context, spec vmm.Spec, h proc.Handle) (vmm.Machine, error) {
	d.mu.Lock()
	g := d.guests[h]
	d.mu.Unlock()
	if g == nil || !h.Alive() {
		return nil, &banger.Error{Kind: banger.ErrNotFound, Op: "take over vm", Subject: string(spec.ID), Err: os.ErrProcessDone}
	}
	return newMemoryMachine(g)
}

// memoryMachine implements vmm.Machine.
type memoryMachine struct {
	guest   *MemoryGuest
	console *io.PipeReader
	network net.Conn
	card    net.Conn // the guest's end of it
	server  *channel.Server
	done    chan struct{}
	exit    vmm.Exit

	mu     sync.Mutex
	killed bool
}

// newMemoryMachine connects a supervisor to a guest.
func newMemoryMachine(g *MemoryGuest) (*memoryMachine, error) {
	host, guest := net.Pipe()
	server, err := channel.Serve(host, statedir.VMDir{Path: g.Spec.Dir}.GuestSocket())
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	network, card, err := socketPair()
	if err != nil {
		server.Close()
		return nil, err
	}
	g.mu.Lock()
	g.console, g.network = w, card
	g.mu.Unlock()
	m := &memoryMachine{guest: g, console: r, network: network, card: card, server: server, done: make(chan struct{})}
	go func() {
		select {
		case g.channel <- guest:
		case <-g.gone:
		case <-server.Done():
		}
	}()
	go m.watch(w)
	return m, nil
}

// hangUp ends the stream of frames, whoever has taken its host's end over.
func (m *memoryMachine) hangUp() {
	m.network.Close()
	m.card.Close()
}

// socketPair is two ends of a stream, as a VMM's process and its supervisor have them.
func socketPair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	files := [2]*os.File{os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")}
	defer files[0].Close()
	defer files[1].Close()
	if a, err = net.FileConn(files[0]); err != nil {
		return nil, nil, err
	}
	if b, err = net.FileConn(files[1]); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

func (m *memoryMachine) watch(console *io.PipeWriter) {
	<-m.guest.gone
	m.server.Close()
	console.Close()
	m.hangUp()
	m.guest.mu.Lock()
	cause := m.guest.cause
	m.guest.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case cause != "":
	case m.killed:
		cause = banger.ExitKilled
	default:
		cause = banger.ExitCrash
	}
	m.exit = vmm.Exit{Cause: cause, Detail: "the in-memory machine ended: " + string(cause)}
	close(m.done)
}

func (m *memoryMachine) Console() io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{m.console, keyboard{m.guest}}
}

// keyboard types for the guest, which takes what it can.
type keyboard struct{ guest *MemoryGuest }

func (k keyboard) Write(p []byte) (int, error) {
	select {
	case k.guest.typed <- bytes.Clone(p):
		return len(p), nil
	case <-k.guest.gone:
		return 0, io.ErrClosedPipe
	}
}

func (m *memoryMachine) Network() net.Conn { return m.network }

func (m *memoryMachine) PowerButton(context.Context) error {
	select {
	case <-m.guest.gone:
		return &banger.Error{Kind: banger.ErrUnavailable, Op: "press power button", Err: os.ErrProcessDone}
	default:
	}
	select {
	case m.guest.button <- struct{}{}:
	default: // pressed already
	}
	return nil
}

func (m *memoryMachine) Kill(ctx context.Context) error {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	if err := m.guest.handle.Kill(ctx); err != nil {
		return err
	}
	<-m.done
	return nil
}

func (m *memoryMachine) Wait() vmm.Exit {
	<-m.done
	return m.exit
}

// Drop is the death of a machine's supervisor: its connections end, the VMM lives on.
func (d *Memory) Drop(m vmm.Machine) {
	machine := m.(*memoryMachine)
	machine.server.Close()
	machine.console.Close()
	machine.hangUp()
}
