package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/vmm"
)

func TestRun(t *testing.T) {
	w := newWorld(t, agent)
	done := w.start(t.Context())
	status := w.ready()
	if status.Phase != machine.PhaseReady || status.Attempts != 1 || status.Accel != "tcg" || status.BootID != bootID || status.Exit != nil {
		t.Errorf("status %+v", status)
	}
	if !hasStep(status.Timings, "host", "start vmm") || !hasStep(status.Timings, "guest", `mount\x1b[2J`) {
		t.Errorf("timings %+v, want host and guest apart and no control character", status.Timings)
	}
	id := <-w.identified
	if id.HostName != "devbox" || len(id.Entropy) != 32 || id.Clock.IsZero() || len(id.UserKeys) != 1 || id.HostKey == "" {
		t.Errorf("identity %+v", id)
	}
	self, err := proc.Self()
	if h := w.handles(); err != nil || h.Supervisor != self || !h.VMM.Alive() || h.Attempt != 1 {
		t.Errorf("handles %+v, %v", h, err)
	}
	for range 3 { // over one connection
		if result, out, err := w.exec("sh", "-c", "echo $FROM_CONFIG; exit 4"); err != nil || result.Status != 4 || out != "yes\n" {
			t.Errorf("exec = %+v, %q, %v", result, out, err)
		}
	}
	checkConnect(t, w)
	if err := func() error { _, err := w.client.Connect(t.Context(), 9999); return err }(); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Connect to a port that nobody serves = %v, want ErrUnavailable", err)
	}
	var console bytes.Buffer
	if _, err := w.client.Console(t.Context(), machine.ConsoleRequest{}, &console); err != nil || !strings.Contains(console.String(), "hello from the kernel") {
		t.Errorf("Console = %q, %v", console.String(), err)
	}
	waited := make(chan banger.Exit, 1)
	go func() {
		exit, err := w.client.Wait(t.Context())
		if err != nil {
			t.Error(err)
		}
		waited <- exit
	}()
	exit, err := w.client.Shutdown(t.Context(), patience)
	if err != nil || exit.Cause != banger.ExitPowerOff {
		t.Errorf("Shutdown = %+v, %v, want power-off", exit, err)
	}
	if got := <-waited; got != exit {
		t.Errorf("Wait = %+v, Shutdown %+v", got, exit)
	}
	if got := w.finish(done); got != exit {
		t.Errorf("Run = %+v, Shutdown %+v", got, exit)
	}
	console.Reset()
	if _, err := w.client.Console(t.Context(), machine.ConsoleRequest{Follow: true}, &console); err != nil || !strings.Contains(console.String(), "hello from the kernel") {
		t.Errorf("Console after the end = %q, %v", console.String(), err)
	}
}

func checkConnect(t *testing.T, w *world) {
	t.Helper()
	conn, err := w.client.Connect(t.Context(), portEcho)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		conn.Write(large)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, large) {
		t.Errorf("echo of %d bytes = %d bytes, %v", len(large), len(got), err)
	}
}

func TestBoots(t *testing.T) {
	short := func(w *world) { w.cfg.BootDeadline = 300 * time.Millisecond }
	for _, test := range []struct {
		name      string
		behaviors []behavior
		change    func(*world)
		cause     banger.ExitCause // "": gets ready
		attempts  int
		accel     string
		console   string
	}{
		{"never ready", []behavior{silent}, short, banger.ExitNoBoot, 2, "tcg", `stuck \x1b[31mhere`},
		{"other version", []behavior{foreign}, short, banger.ExitNoBoot, 2, "tcg", "another version"},
		{"ready at the second boot", []behavior{silent, agent}, func(w *world) { w.cfg.BootDeadline = 3 * time.Second }, "", 2, "tcg", ""},
		{"KVM does not work", []behavior{silent, agent}, func(w *world) {
			w.cfg.Accel, w.cfg.TSCKHz, w.cfg.BootDeadline = "kvm", 0, time.Second
		}, "", 2, "tcg", ""},
		{"VMM crashes under KVM", []behavior{crashing, agent}, func(w *world) { w.cfg.Accel = "kvm" }, "", 2, "tcg", ""},
		{"VMM crashes", []behavior{crashing}, func(*world) {}, banger.ExitCrash, 1, "tcg", "hello"},
		{"panic", []behavior{panicking}, func(*world) {}, banger.ExitPanic, 1, "tcg", "Kernel panic"},
		{"no kernel", []behavior{agent}, func(w *world) { w.cfg.Vmlinux = "/nonexistent/vmlinux" }, banger.ExitCrash, 1, "tcg", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.behaviors...)
			test.change(w)
			done := w.start(t.Context())
			status := w.ready()
			if status.Attempts != test.attempts || status.Accel != test.accel {
				t.Errorf("status %+v, want %d attempts and %s", status, test.attempts, test.accel)
			}
			if test.cause == "" {
				if status.Phase != machine.PhaseReady || status.Exit != nil {
					t.Errorf("status %+v, want ready", status)
				}
				if test.attempts == 2 && test.name[:3] == "KVM" && (w.specs[0].Accel != vmm.KVM || w.specs[1].Accel != vmm.TCG || w.specs[1].TSCKHz == 0) {
					t.Errorf("specs %+v, want KVM, then TCG with the counter's frequency", w.specs)
				}
				return
			}
			if status.Phase != machine.PhaseEnded || status.Exit == nil {
				t.Fatalf("status %+v, want the end", status)
			}
			exit := w.finish(done)
			if exit != *status.Exit || exit.Cause != test.cause || exit.Detail == "" || !strings.Contains(exit.Console, test.console) || exit.At.IsZero() {
				t.Errorf("exit %+v, status's %+v, want %s with %q on the console", exit, status.Exit, test.cause, test.console)
			}
		})
	}
}

// crashing has a VMM that someone kills at once.
func crashing(w *world, g guestInMemory) {
	w.killVMM()
	<-g.Gone()
}

func (w *world) killVMM() {
	if err := w.handles().VMM.Signal(syscall.SIGKILL); err != nil {
		w.t.Error(err)
	}
}

// A kernel that panics before its panic device works resets the machine.
func TestEarlyPanicIsNoReboot(t *testing.T) {
	for _, test := range []struct {
		console string
		cause   banger.ExitCause
	}{
		{"[    0.9] Kernel panic - not syncing: Attempted to kill init!\r\n", banger.ExitPanic},
		{"[    0.9] reboot: machine restart\r\n", banger.ExitReboot},
	} {
		w := newWorld(t, func(_ *world, g guestInMemory) {
			fmt.Fprint(g, test.console)
			g.Reboot()
		})
		if exit := w.finish(w.start(t.Context())); exit.Cause != test.cause {
			t.Errorf("after %q: %+v, want %s", test.console, exit, test.cause)
		}
	}
}

func TestEnds(t *testing.T) {
	for _, test := range []struct {
		name  string
		end   func(*world)
		cause banger.ExitCause
	}{
		{"power-off by the guest", func(w *world) { w.guest(0).PowerOff() }, banger.ExitPowerOff},
		{"reboot", func(w *world) { w.guest(0).Reboot() }, banger.ExitReboot},
		{"panic", func(w *world) { w.guest(0).Panic() }, banger.ExitPanic},
		{"VMM crash", (*world).killVMM, banger.ExitCrash},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, agent)
			done := w.start(t.Context())
			w.ready()
			began, cut := make(chan bool), make(chan error, 1)
			go func() {
				_, err := w.client.Exec(t.Context(), banger.ExecRequest{Argv: []string{"sh", "-c", "echo begun; exec sleep 60"}}, machine.Stdio{Stdout: &first{got: began}})
				cut <- err
			}()
			<-began
			follower := make(chan string, 1)
			go func() {
				var out bytes.Buffer
				if _, err := w.client.Console(t.Context(), machine.ConsoleRequest{Follow: true}, &out); err != nil {
					t.Error(err)
				}
				follower <- out.String()
			}()
			test.end(w)
			if exit := w.finish(done); exit.Cause != test.cause {
				t.Errorf("exit %+v, want %s", exit, test.cause)
			}
			if err := <-cut; !errors.Is(err, banger.ErrUnavailable) {
				t.Errorf("the command that ran = %v, want ErrUnavailable", err)
			}
			if out := <-follower; !strings.Contains(out, "hello from the kernel") {
				t.Errorf("the follower read %q", out)
			}
			if exit, err := w.client.Wait(t.Context()); err != nil || exit.Cause != test.cause {
				t.Errorf("Wait afterwards = %+v, %v", exit, err)
			}
		})
	}
}

// first tells of the first write.
type first struct{ got chan bool }

func (f *first) Write(p []byte) (int, error) {
	if f.got != nil {
		close(f.got)
		f.got = nil
	}
	return len(p), nil
}

func TestShutdown(t *testing.T) {
	pressable := func(w *world, g guestInMemory) {
		go func() {
			select {
			case <-g.Button():
				g.PowerOff()
			case <-g.Gone():
			}
		}()
		deaf(w, g)
	}
	silentButton := func(w *world, g guestInMemory) {
		select {
		case <-g.Button():
			g.PowerOff()
		case <-g.Gone():
		}
	}
	for _, test := range []struct {
		name    string
		guest   behavior
		booting bool
		timeout time.Duration
		cause   banger.ExitCause
	}{
		{"at once", agent, false, 0, banger.ExitKilled},
		{"agent", agent, false, patience, banger.ExitPowerOff},
		{"button", pressable, false, 500 * time.Millisecond, banger.ExitPowerOff},
		{"deaf", deaf, false, 300 * time.Millisecond, banger.ExitKilled},
		{"booting, at once", silent, true, 0, banger.ExitKilled},
		{"booting, button", silentButton, true, 500 * time.Millisecond, banger.ExitPowerOff},
		{"booting, deaf", silent, true, 300 * time.Millisecond, banger.ExitKilled},
		{"booting, gets ready", agent, true, patience, banger.ExitPowerOff},
	} {
		t.Run(test.name, func(t *testing.T) {
			booted := make(chan bool)
			w := newWorld(t, func(w *world, g guestInMemory) {
				close(booted)
				test.guest(w, g)
			})
			done := w.start(t.Context())
			<-booted
			if !test.booting {
				w.ready()
			} else {
				w.awaitLaunch()
			}
			exit, err := w.client.Shutdown(t.Context(), test.timeout)
			if err != nil || exit.Cause != test.cause {
				t.Errorf("Shutdown = %+v, %v, want %s", exit, err, test.cause)
			}
			w.finish(done)
			if len(w.guests) != 1 {
				t.Errorf("%d boots, want no retry", len(w.guests))
			}
		})
	}
}

// A second shutdown with no patience ends the first.
func TestShutdownTwice(t *testing.T) {
	w := newWorld(t, deaf)
	done := w.start(t.Context())
	w.ready()
	first := make(chan banger.Exit, 1)
	go func() {
		exit, err := w.client.Shutdown(t.Context(), time.Hour)
		if err != nil {
			t.Error(err)
		}
		first <- exit
	}()
	for w.status().Phase != machine.PhaseEnding {
		time.Sleep(time.Millisecond)
	}
	exit, err := w.client.Shutdown(t.Context(), 0)
	if err != nil || exit.Cause != banger.ExitKilled || <-first != exit {
		t.Errorf("Shutdown = %+v, %v, want killed for both", exit, err)
	}
	w.finish(done)
}

func (w *world) status() machine.Status {
	w.t.Helper()
	status, err := w.client.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return status
}

// A shutdown goes on when its client has gone.
func TestShutdownWithoutClient(t *testing.T) {
	w := newWorld(t, agent)
	done := w.start(t.Context())
	w.ready()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.client.Shutdown(ctx, patience) // may or may not arrive
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	w.client.Shutdown(ctx, patience)
	if exit := w.finish(done); exit.Cause != banger.ExitPowerOff {
		t.Errorf("exit %+v", exit)
	}
}

// A supervisor that is told to end shuts its VM down.
func TestTerminate(t *testing.T) {
	w := newWorld(t, agent)
	ctx, cancel := context.WithCancel(t.Context())
	done := w.start(ctx)
	w.ready()
	cancel()
	if exit := w.finish(done); exit.Cause != banger.ExitPowerOff {
		t.Errorf("exit %+v, want power-off", exit)
	}
}

func TestClientVanishes(t *testing.T) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // under nohup the command could not trap it otherwise
	w := newWorld(t, agent)
	w.start(t.Context())
	w.ready()
	trapped := filepath.Join(t.TempDir(), "hup")
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan bool)
	done := make(chan error, 1)
	go func() {
		script := "trap 'mkdir " + trapped + "; exit' HUP; echo begun; while :; do sleep 0.05; done"
		_, err := w.client.Exec(ctx, banger.ExecRequest{Argv: []string{"sh", "-c", script}}, machine.Stdio{Stdout: &first{got: began}})
		done <- err
	}()
	<-began
	cancel()
	if err := <-done; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Exec = %v, want ErrInterrupted", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(trapped); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the command was not hung up")
		}
	}
}

func TestInit(t *testing.T) {
	ask := func(w *world) machine.Status {
		t.Helper()
		status, err := w.client.Init(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	w := newWorld(t, agent)
	w.start(t.Context())
	if status := ask(w); status.Phase != machine.PhaseReady || status.Init != "" {
		t.Errorf("without an init of the image: %+v", status)
	}

	w = newWorld(t, agent)
	w.cfg.Boot = banger.BootSystem
	w.start(t.Context())
	if status := w.ready(); status.Init != machine.InitStarting {
		t.Errorf("in the beginning: %+v", status)
	}
	go func() { w.init <- "degraded\x1b[2J" }()
	for range 2 {
		if status := ask(w); status.Init != `degraded\x1b[2J` {
			t.Errorf("once it is up: %+v", status)
		}
	}

	w = newWorld(t, agent)
	w.cfg.Boot, w.patience = banger.BootSystem, time.Millisecond
	done := w.start(t.Context())
	if status := ask(w); status.Init != machine.InitStarting {
		t.Errorf("when it takes too long: %+v", status)
	}

	w.client.Shutdown(t.Context(), 0)
	w.finish(done)
	w = newWorld(t, agent)
	w.cfg.Boot = banger.BootSystem
	done = w.start(t.Context())
	w.ready()
	answer := make(chan machine.Status, 1)
	go func() {
		status, _ := w.client.Init(context.Background())
		answer <- status
	}()
	w.client.Shutdown(t.Context(), 0)
	if status, ok := <-answer; !ok || status.Init == "running" {
		t.Errorf("when the run ends: %+v", status)
	}
	w.finish(done)
}

func TestTakeOver(t *testing.T) {
	for _, ready := range []bool{true, false} {
		w := newWorld(t, agent)
		vmmHandle := w.orphan(ready)
		done := w.start(t.Context())
		status := w.ready()
		if status.Phase != machine.PhaseReady || status.Attempts != 1 {
			t.Errorf("ready before %v: status %+v", ready, status)
		}
		<-w.identified
		h := w.handles()
		if self, err := proc.Self(); err != nil || h.Supervisor != self || h.VMM != vmmHandle {
			t.Errorf("handles %+v, want the VMM %+v of before", h, vmmHandle)
		}
		if result, out, err := w.exec("echo", "again"); err != nil || out != "again\n" {
			t.Errorf("exec = %+v, %q, %v", result, out, err)
		}
		w.guest(0).Write([]byte("still here\r\n"))
		if exit, err := w.client.Shutdown(t.Context(), patience); err != nil || exit.Cause != banger.ExitPowerOff || !strings.Contains(exit.Console, "still here") {
			t.Errorf("Shutdown = %+v, %v", exit, err)
		}
		w.finish(done)
		if len(w.guests) != 1 {
			t.Errorf("%d boots, want one", len(w.guests))
		}
	}
}

func TestTakeOverOfTheDead(t *testing.T) {
	w := newWorld(t, agent)
	if err := w.orphan(true).Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit := w.finish(w.start(t.Context())); exit.Cause != banger.ExitUnknown {
		t.Errorf("exit %+v, want unknown", exit)
	}
	if len(w.guests) != 1 {
		t.Errorf("%d boots, want one", len(w.guests))
	}
}

func TestNothingStartsWithoutKeys(t *testing.T) {
	w := newWorld(t, agent)
	if err := os.WriteFile(w.dir.HostKey(), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := <-w.start(t.Context()); !errors.Is(o.err, banger.ErrCorrupt) {
		t.Errorf("Run = %+v, want ErrCorrupt", o)
	}
	if _, err := w.client.Status(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Status = %v, want ErrUnavailable", err)
	}
}

func TestBadRequest(t *testing.T) {
	w := newWorld(t, agent)
	w.start(t.Context())
	w.ready()
	for _, line := range []string{"nonsense\n", "{}\n", `{"status":{},"wait":{}}` + "\n", strings.Repeat("x", 2<<20)} {
		if answer := w.raw(line); !strings.Contains(answer, `"kind":"invalid"`) {
			t.Errorf("%.40q is answered %q, want an error", line, answer)
		}
	}
}

func TestLastLines(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"plain", "one\r\ntwo\r\n", "one\ntwo"},
		{"escape", "a\x1b[31mb\x00\xffé\ufffd\tc", `a\x1b[31mb\x00\xffé` + "\ufffd c"},
		{"many", strings.Repeat("x\n", 100), strings.TrimSuffix(strings.Repeat("x\n", tailLines), "\n")},
		{"panic", "a\n" + panicMark + ": why\n" + strings.Repeat("x\n", 100), panicMark + ": why" + strings.Repeat("\nx", tailLines-1)},
		{"panic within reach", "a\n" + panicMark + "\nb", "a\n" + panicMark + "\nb"},
	} {
		if got := lastLines([]byte(test.in)); got != test.want {
			t.Errorf("%s: lastLines = %q, want %q", test.name, got, test.want)
		}
	}
	if got := escape(strings.Repeat("é", 100), 10); got != "ééééé…" {
		t.Errorf("escape of a long text = %q", got)
	}
}
