package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/guest"
	"banger/internal/guestagent"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// patience is far more than anything takes here.
const patience = 60 * time.Second

const (
	portEcho = 7
	bootID   = "11111111-2222-3333-4444-555555555555"
)

// behavior is one guest: what it does in its whole life.
type behavior func(*world, *vmmtest.MemoryGuest)

// world is one VM with guests in memory.
type world struct {
	t      *testing.T
	dir    statedir.VMDir
	cfg    machine.Config
	driver *vmmtest.Memory
	via    vmm.Driver // optional: what the supervisor gets instead
	client machine.Client

	mu     sync.Mutex
	guests []*vmmtest.MemoryGuest // one for each boot
	specs  []vmm.Spec

	clock      func(context.Context) (<-chan struct{}, error)
	patience   time.Duration         // with the image's init
	init       chan string           // what that says
	identified chan channel.Identify // each one that a guest gets
}

// newWorld makes a VM whose boots behave so, in order; the last one again and again.
func newWorld(t *testing.T, behaviors ...behavior) *world {
	t.Helper()
	w := &world{t: t, dir: statedir.VMDir{Path: t.TempDir()}, identified: make(chan channel.Identify, 8), init: make(chan string)}
	keys, err := guest.GenerateKeys("test")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{w.dir.UserKey(): keys.UserPrivate, w.dir.HostKey(): keys.HostPrivate}
	for _, name := range []string{"vmlinux", "initrd", "base", "modules", "disk"} {
		files[filepath.Join(w.dir.Path, name)] = nil
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(w.dir.Path, name) }
	w.cfg = machine.Config{ID: "0123456789ab", Name: "devbox", Dir: w.dir.Path, QEMU: "sleep", Accel: "tcg", TSCKHz: 1, VCPU: 1, MemoryMiB: 64,
		Vmlinux: in("vmlinux"), Initrd: in("initrd"), Base: in("base"), Modules: in("modules"), Disk: in("disk"), Boot: banger.BootAgent,
		BootDeadline: patience, Env: map[string]string{"FROM_CONFIG": "yes"}}
	w.driver = &vmmtest.Memory{Boot: func(g *vmmtest.MemoryGuest) {
		w.mu.Lock()
		w.guests, w.specs = append(w.guests, g), append(w.specs, g.Spec)
		behave := behaviors[min(len(w.guests), len(behaviors))-1]
		w.mu.Unlock()
		fmt.Fprintf(g, "hello from the kernel\r\n")
		behave(w, g)
	}}
	w.client = machine.Client{Socket: w.dir.MachineSocket()}
	return w
}

// outcome is what Run returned.
type outcome struct {
	exit banger.Exit
	err  error
}

// start runs the supervisor beside the test.
func (w *world) start(ctx context.Context) <-chan outcome {
	w.t.Helper()
	listener, err := machine.Listen(w.dir.MachineSocket())
	if err != nil {
		w.t.Fatal(err)
	}
	var driver vmm.Driver = w.driver
	if w.via != nil {
		driver = w.via
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.exit, o.err = Run(ctx, Config{Machine: w.cfg, Driver: driver, Listener: listener, InitPatience: w.patience, ClockChanges: w.clock})
		done <- o
	}()
	w.t.Cleanup(func() { w.client.Shutdown(context.Background(), 0) })
	return done
}

// finish waits for the supervisor and checks that record and return value agree and no VMM is left.
func (w *world) finish(done <-chan outcome) banger.Exit {
	w.t.Helper()
	var o outcome
	select {
	case o = <-done:
	case <-time.After(patience):
		w.t.Fatal("the supervisor does not end")
	}
	if o.err != nil {
		w.t.Fatal(o.err)
	}
	record, err := machine.ReadExit(w.dir.ExitRecord())
	if err != nil || record != o.exit {
		w.t.Errorf("exit.json says %+v, %v, Run %+v", record, err, o.exit)
	}
	if h := w.handles(); h.VMM.PID != 0 && h.VMM.Alive() {
		w.t.Errorf("VMM %d is left", h.VMM.PID)
	}
	return o.exit
}

func (w *world) handles() (h machine.Handles) {
	w.t.Helper()
	text, err := os.ReadFile(w.dir.Handles())
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// ready waits until the guest is ready or the run has ended.
func (w *world) ready() machine.Status {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	status, err := w.client.Ready(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return status
}

func (w *world) guest(i int) *vmmtest.MemoryGuest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.guests[i]
}

// exec runs a command and gives its output.
func (w *world) exec(argv ...string) (banger.ExecResult, string, error) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	result, err := w.client.Exec(ctx, banger.ExecRequest{Argv: argv}, machine.Stdio{Stdout: &out, Stderr: &out})
	return result, out.String(), err
}

// agent is a guest that does what it is told.
func agent(w *world, g *vmmtest.MemoryGuest) { serveAgent(w, g, g.PowerOff) }

// deaf is one that never powers off by itself.
func deaf(w *world, g *vmmtest.MemoryGuest) { serveAgent(w, g, func() {}) }

// silent never says anything on the channel.
func silent(_ *world, g *vmmtest.MemoryGuest) {
	fmt.Fprintf(g, "stuck \x1b[31mhere\r\n")
	<-g.Gone()
}

// panicking has a kernel that panics.
func panicking(_ *world, g *vmmtest.MemoryGuest) {
	fmt.Fprintf(g, "Kernel panic - not syncing\r\n")
	g.Panic()
}

// foreign is a guest of another version.
func foreign(w *world, g *vmmtest.MemoryGuest) {
	for conn := g.Channel(); conn != nil; conn = g.Channel() {
		session, err := channel.Guest(conn)
		if err != nil {
			continue
		}
		for events, err := session.Open(context.Background(), channel.PortEvents); err == nil; events, err = session.Open(context.Background(), channel.PortEvents) {
			channel.WriteLine(events, &channel.FromGuest{Hello: &channel.Hello{Version: channel.ProtocolVersion + 1}})
			io.Copy(io.Discard, events)
			events.Close()
		}
		<-session.Done()
	}
}

func serveAgent(w *world, g *vmmtest.MemoryGuest, powerOff func()) {
	server := guestagent.NewServer(false)
	for conn := g.Channel(); conn != nil; conn = g.Channel() {
		session, err := channel.Guest(conn)
		if err != nil {
			continue
		}
		go func() {
			events, err := session.Open(context.Background(), channel.PortEvents)
			if err == nil {
				err = w.events(server, events, powerOff)
			}
			if err != nil && !errors.Is(err, io.EOF) {
				select {
				case <-session.Done():
				default:
					w.t.Log("events:", err)
				}
			}
		}()
		session.Serve(func(port uint32) channel.Handler {
			switch port {
			case channel.PortSSH:
				return server.ServeSSH
			case channel.PortDial:
				return server.ServeDial
			case channel.PortListen:
				return server.ServeListeners
			case portEcho:
				return func(conn net.Conn) { io.Copy(conn, conn) }
			}
			return nil
		})
	}
}

func (w *world) events(server *guestagent.Server, conn net.Conn, powerOff func()) error {
	if err := channel.WriteLine(conn, &channel.FromGuest{Hello: &channel.Hello{Version: channel.ProtocolVersion, BootID: bootID}}); err != nil {
		return err
	}
	for r := bufio.NewReaderSize(conn, channel.MaxToGuest); ; {
		var m channel.ToGuest
		if err := channel.ReadLine(r, &m, channel.MaxToGuest); err != nil {
			return err
		}
		if m.PowerOff != nil {
			powerOff()
			continue
		}
		if err := server.SetIdentity(*m.Identify); err != nil {
			return err
		}
		w.identified <- *m.Identify
		ready := &channel.Ready{Timings: []banger.Timing{{Side: "host", Step: "mount\x1b[2J", Elapsed: time.Second}}}
		if err := channel.WriteLine(conn, &channel.FromGuest{Ready: ready}); err != nil {
			return err
		}
		if w.cfg.Boot == banger.BootSystem {
			go w.comeUp(conn)
		}
	}
}

// comeUp tells what the image's init says.
func (w *world) comeUp(conn net.Conn) {
	select {
	case state := <-w.init:
		channel.WriteLine(conn, &channel.FromGuest{System: &channel.System{State: state}})
	case <-w.t.Context().Done():
	}
}

// orphan starts a VMM as a supervisor would that died then.
func (w *world) orphan(ready bool) proc.Handle {
	w.t.Helper()
	var handle proc.Handle
	m, err := w.driver.Start(w.t.Context(), Spec(w.cfg), func(h proc.Handle) error {
		handle = h
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	go io.Copy(io.Discard, m.Console())
	w.driver.Drop(m)
	dead := proc.Handle{PID: 1, StartTime: 1, BootID: "another boot"}
	if err := writeJSON(w.dir.Handles(), machine.Handles{Supervisor: dead, VMM: handle, Attempt: 1, Ready: ready}); err != nil {
		w.t.Fatal(err)
	}
	return handle
}

func hasStep(timings []banger.Timing, side, part string) bool {
	for _, timing := range timings {
		if timing.Side == side && strings.Contains(timing.Step, part) {
			return true
		}
	}
	return false
}

type guestInMemory = *vmmtest.MemoryGuest

// awaitLaunch waits until the VMM is known, while the guest is booting.
func (w *world) awaitLaunch() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if _, err := w.client.Console(ctx, machine.ConsoleRequest{Follow: true}, &until{text: "hello from the kernel"}); !errors.Is(err, errSeen) {
		w.t.Fatalf("the console: %v", err)
	}
}

var errSeen = errors.New("seen")

// until fails once text was written.
type until struct {
	text string
	got  strings.Builder
}

func (u *until) Write(p []byte) (int, error) {
	if u.got.Write(p); strings.Contains(u.got.String(), u.text) {
		return 0, errSeen
	}
	return len(p), nil
}

// raw sends a line and gives the answer.
func (w *world) raw(line string) string {
	w.t.Helper()
	conn, err := net.Dial("unix", w.dir.MachineSocket())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	go io.WriteString(conn, line)
	conn.SetReadDeadline(time.Now().Add(patience))
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		w.t.Log(err)
	}
	return answer
}
