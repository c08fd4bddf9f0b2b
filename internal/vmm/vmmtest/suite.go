// Package vmmtest is the contract of vmm.Driver as a test suite, the guest that it talks to, and a driver in memory.
package vmmtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/vmm"
)

// Greeting is what the test guest prints on its console when it is up.
const Greeting = "the test guest is up"

// Patience is how long the suite waits for anything before it fails.
const Patience = time.Minute

// World is what a driver needs to be tested.
type World struct {
	// Spec is a new machine with a [Guest], in an empty directory of its own with a short path.
	Spec func(t *testing.T) vmm.Spec
	// Orphan starts a machine by a supervisor that dies afterwards.
	Orphan func(t *testing.T, d vmm.Driver, spec vmm.Spec) proc.Handle
}

// Run tests a driver. Each test takes a new one.
func Run(t *testing.T, newDriver func(t *testing.T) vmm.Driver, w World) {
	s := suite{newDriver, w}
	t.Run("Talk", s.talk)
	t.Run("Network", s.network)
	t.Run("Exits", s.exits)
	t.Run("Kill", s.kill)
	t.Run("Crash", s.crash)
	t.Run("Attach", s.attach)
	t.Run("AttachGone", s.attachGone)
	t.Run("StartFailures", s.startFailures)
	t.Run("StartTwice", s.startTwice)
	t.Run("AfterTheEnd", s.afterTheEnd)
}

type suite struct {
	newDriver func(t *testing.T) vmm.Driver
	world     World
}

// running is a machine under test.
type running struct {
	vmm.Machine
	t      *testing.T
	ctx    context.Context
	spec   vmm.Spec
	handle proc.Handle
	*consoleText
}

func (s suite) start(t *testing.T) *running {
	t.Helper()
	r := &running{t: t, spec: s.world.Spec(t)}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	m, err := s.newDriver(t).Start(r.ctx, r.spec, func(h proc.Handle) error {
		if !h.Alive() {
			t.Error("started was called with a process that does not run")
		}
		r.handle = h
		return nil
	})
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	r.adopt(m)
	return r
}

func (r *running) adopt(m vmm.Machine) {
	r.Machine, r.consoleText = m, readConsole(m.Console())
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			r.t.Errorf("Kill at the end of the test: %v", err)
		}
	})
}

// order sends a command to the guest and gives its answer.
func (r *running) order(command string) string {
	r.t.Helper()
	conn, err := channel.Dial(r.ctx, statedir.VMDir{Path: r.spec.Dir}.GuestSocket(), portControl)
	if err != nil {
		r.t.Fatalf("connect to the guest: %v\nconsole:\n%s", err, r.text())
	}
	defer conn.Close()
	fmt.Fprintln(conn, command)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		r.t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(answer)
}

func (r *running) ends(cause banger.ExitCause) {
	r.t.Helper()
	exited := make(chan vmm.Exit, 1)
	go func() { exited <- r.Wait() }()
	select {
	case exit := <-exited:
		if exit.Cause != cause || exit.Detail == "" || strings.ContainsAny(exit.Detail, "\n\x1b") {
			r.t.Errorf("Wait = %+v, want %s with one line of detail", exit, cause)
		}
		if again := r.Wait(); again != exit {
			r.t.Errorf("second Wait = %+v, want %+v", again, exit)
		}
	case <-r.ctx.Done():
		r.t.Fatalf("the machine does not end; console:\n%s", r.text())
	}
	if r.handle.Alive() {
		r.t.Error("Wait returned and the process lives")
	}
	if !r.wait(r.ctx, "\x00") {
		r.t.Error("the console does not end")
	}
}

func (s suite) talk(t *testing.T) {
	r := s.start(t)
	if answer := r.order(cmdPrint + "hello, console"); answer != "ok" {
		t.Errorf("print: %q", answer)
	}
	if !r.wait(r.ctx, Greeting) || !r.wait(r.ctx, "hello, console") {
		t.Errorf("console lacks what the guest printed:\n%s", r.text())
	}
	dir := statedir.VMDir{Path: r.spec.Dir}
	conn, err := channel.Dial(r.ctx, dir.GuestSocket(), portEcho)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data := strings.Repeat("to and fro\x00\n", 100_000)
	go io.WriteString(conn, data)
	back := make([]byte, len(data))
	if _, err := io.ReadFull(conn, back); err != nil || string(back) != data {
		t.Errorf("echo of %d bytes: %v, equal = %v", len(data), err, string(back) == data)
	}
	if conn, err := channel.Dial(r.ctx, dir.GuestSocket(), 4242); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Dial of a port that nobody serves = %v, %v, want ErrUnavailable", conn, err)
	}
	listener, err := channel.Listen(dir.GuestPortSocket(77))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			fmt.Fprintln(conn, "the host speaks")
			conn.Close()
		}
	}()
	if answer := r.order(cmdDial + "77"); answer != "the host speaks" {
		t.Errorf("the guest's connection to the host heard %q", answer)
	}
	if err := r.PowerButton(r.ctx); err != nil {
		t.Errorf("PowerButton: %v", err)
	}
}

// network sends frames to the guest, which sends them back, until the machine ends, and the stream with it.
func (s suite) network(t *testing.T) {
	r := s.start(t)
	r.exchangeFrames()
	if err := r.Kill(r.ctx); err != nil {
		t.Errorf("Kill: %v", err)
	}
	r.Network().SetReadDeadline(time.Now().Add(Patience))
	var timeout net.Error
	if _, err := io.Copy(io.Discard, r.Network()); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the network's stream does not end with the machine")
	}
}

// exchangeFrames has the guest send frames of every size back.
func (r *running) exchangeFrames() {
	r.t.Helper()
	if answer := r.order(cmdCard); answer != "ok" {
		r.t.Fatalf("card: %s", answer)
	}
	wire := r.Network()
	wire.SetDeadline(time.Now().Add(Patience))
	host, guest := []byte{0x52, 0x54, 0, 9, 9, 9}, vmm.MAC(r.spec.ID)
	for _, size := range []int{60, 61, 1000, 1514} {
		head := binary.BigEndian.AppendUint16(slices.Concat(guest, host), etherTest)
		frame := append(head, bytes.Repeat([]byte{byte(size)}, size-len(head))...)
		if _, err := wire.Write(append(binary.BigEndian.AppendUint32(nil, uint32(size)), frame...)); err != nil {
			r.t.Fatalf("send a frame of %d bytes: %v", size, err)
		}
		for {
			got, err := readFrame(wire)
			if err != nil {
				r.t.Fatalf("a frame of %d bytes does not come back: %v", size, err)
			}
			if len(got) >= len(head) && binary.BigEndian.Uint16(got[12:]) == etherTest {
				if want := slices.Concat(host, guest, frame[12:]); !bytes.Equal(got, want) {
					r.t.Errorf("a frame of %d bytes comes back as %d bytes, %x...", size, len(got), got[:14])
				}
				break // other frames are the guest's own
			}
		}
	}
	wire.SetDeadline(time.Time{})
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func (s suite) exits(t *testing.T) {
	for command, cause := range map[string]banger.ExitCause{cmdPowerOff: banger.ExitPowerOff, cmdReboot: banger.ExitReboot, cmdPanic: banger.ExitPanic} {
		t.Run(command, func(t *testing.T) {
			r := s.start(t)
			if answer := r.order(command); answer != "ok" {
				t.Errorf("%s: %q", command, answer)
			}
			r.ends(cause)
			// A kill after the end is harmless and changes nothing.
			if err := r.Kill(r.ctx); err != nil {
				t.Errorf("Kill: %v", err)
			}
			r.ends(cause)
		})
	}
}

func (s suite) kill(t *testing.T) {
	r := s.start(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := r.Kill(r.ctx); err != nil {
				t.Errorf("Kill: %v", err)
			}
			if r.handle.Alive() {
				t.Error("Kill returned and the process lives")
			}
		})
	}
	wg.Wait()
	r.ends(banger.ExitKilled)
	left(t, r.spec.Dir)
}

func (s suite) crash(t *testing.T) {
	r := s.start(t)
	if err := r.handle.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.ends(banger.ExitCrash)
}

func (s suite) attach(t *testing.T) {
	spec := s.world.Spec(t)
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	d := s.newDriver(t)
	r := &running{t: t, ctx: ctx, spec: spec, handle: s.world.Orphan(t, d, spec)}
	m, err := d.Attach(ctx, spec, r.handle)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	r.adopt(m)
	if answer := r.order(cmdPrint + "still here"); answer != "ok" || !r.wait(ctx, "still here") {
		t.Errorf("after Attach: %q, console:\n%s", answer, r.text())
	}
	r.exchangeFrames()
	if answer := r.order(cmdPowerOff); answer != "ok" {
		t.Error(answer)
	}
	r.ends(banger.ExitPowerOff)
}

func (s suite) attachGone(t *testing.T) {
	r := s.start(t)
	if err := r.Kill(r.ctx); err != nil {
		t.Fatal(err)
	}
	self, err := proc.Self()
	if err != nil {
		t.Fatal(err)
	}
	self.StartTime++
	for name, h := range map[string]proc.Handle{"a dead process": r.handle, "a reused id": self, "no process": {}} {
		if _, err := s.newDriver(t).Attach(r.ctx, r.spec, h); !errors.Is(err, banger.ErrNotFound) {
			t.Errorf("Attach to %s = %v, want ErrNotFound", name, err)
		}
	}
}

func (s suite) startFailures(t *testing.T) {
	refused := errors.New("no record")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name    string
		ctx     context.Context
		change  func(*vmm.Spec)
		started error
		want    error
	}{
		{"started fails", t.Context(), func(*vmm.Spec) {}, refused, refused},
		{"context ended", ended, func(*vmm.Spec) {}, nil, banger.ErrInterrupted},
		{"no program", t.Context(), func(s *vmm.Spec) { s.Program = "/nowhere/vmm" }, nil, banger.ErrUnavailable},
		{"no kernel", t.Context(), func(s *vmm.Spec) { s.Kernel += ".missing" }, nil, banger.ErrUnavailable},
		{"no drive", t.Context(), func(s *vmm.Spec) {
			s.Drives = append(s.Drives, vmm.Drive{Serial: "x", Path: filepath.Join(s.Dir, "none")})
		}, nil, banger.ErrUnavailable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			spec := s.world.Spec(t)
			test.change(&spec)
			var handle proc.Handle
			m, err := s.newDriver(t).Start(test.ctx, spec, func(h proc.Handle) error {
				handle = h
				return test.started
			})
			if m != nil || !errors.Is(err, test.want) {
				t.Errorf("Start = %v, %v, want %v", m, err, test.want)
			}
			if handle.Alive() {
				t.Error("the process was left running")
			}
			left(t, spec.Dir)
		})
	}
}

// left reports sockets in the VM's directory.
func left(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeSocket != 0 {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// startTwice starts the same VM again after its end, as a restart does, with stale sockets lying about.
func (s suite) startTwice(t *testing.T) {
	spec := s.world.Spec(t)
	again := suite{s.newDriver, World{Spec: func(*testing.T) vmm.Spec { return spec }}}
	dir := statedir.VMDir{Path: spec.Dir}
	for range 2 {
		r := again.start(t)
		if answer := r.order(cmdReboot); answer != "ok" {
			t.Error(answer)
		}
		r.ends(banger.ExitReboot)
		for _, path := range []string{dir.GuestSocket(), dir.QMPSocket()} {
			listener, err := channel.Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
		}
	}
}

func (s suite) afterTheEnd(t *testing.T) {
	r := s.start(t)
	if err := r.Kill(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.PowerButton(r.ctx); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("PowerButton after the end = %v, want ErrUnavailable", err)
	}
	if _, err := channel.Dial(r.ctx, statedir.VMDir{Path: r.spec.Dir}.GuestSocket(), portEcho); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Dial after the end = %v, want ErrUnavailable", err)
	}
}

// consoleText collects a console all the time. Its end is a NUL.
type consoleText struct {
	mu      sync.Mutex
	buf     strings.Builder
	changed chan struct{}
}

func readConsole(r io.Reader) *consoleText {
	c := &consoleText{changed: make(chan struct{})}
	go func() {
		chunk := make([]byte, 4096)
		for {
			n, err := r.Read(chunk)
			c.add(strings.ReplaceAll(string(chunk[:n]), "\x00", ""))
			if err != nil {
				c.add("\x00")
				return
			}
		}
	}()
	return c
}

func (c *consoleText) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf.WriteString(text)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *consoleText) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

// wait reports whether the console comes to hold text before ctx ends.
func (c *consoleText) wait(ctx context.Context, text string) bool {
	for {
		c.mu.Lock()
		found, changed := strings.Contains(c.buf.String(), text), c.changed
		c.mu.Unlock()
		if found {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
