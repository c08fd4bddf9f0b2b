package lifecycle

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
)

// envRole makes this binary a supervisor: "obedient" does as it is told, "stubborn" never ends; or the "vmm" that those start.
const envRole = "LIFECYCLE_TEST_SUPERVISOR"

func TestMain(m *testing.M) {
	proc.MaybeConfineMain()
	if role := os.Getenv(envRole); role == "vmm" {
		time.Sleep(10 * time.Minute)
		os.Exit(0)
	} else if role != "" {
		if err := playSupervisor(role == "stubborn"); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// playSupervisor does what banger-machine does as far as its daemon sees. Its VMM is a process that sleeps.
func playSupervisor(stubborn bool) error {
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		return err
	}
	var cfg machine.Config
	if err := json.Unmarshal(text, &cfg); err != nil {
		return err
	}
	dir := statedir.VMDir{Path: cfg.Dir}
	var handles machine.Handles
	if text, err := os.ReadFile(dir.Handles()); err == nil { // takes a VMM over
		if err := json.Unmarshal(text, &handles); err != nil {
			return err
		}
	}
	if handles.VMM.PID == 0 {
		if handles.VMM, err = startVMM(dir); err != nil {
			return err
		}
	}
	if handles.Supervisor, err = proc.Self(); err != nil {
		return err
	}
	if err := writeJSON(dir.Handles(), handles); err != nil {
		return err
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go serveRequest(conn, dir, handles, stubborn)
	}
}

// startVMM starts a process that is named like a VMM, works for this VM and does nothing.
func startVMM(dir statedir.VMDir) (proc.Handle, error) {
	self, err := os.Executable()
	if err != nil {
		return proc.Handle{}, err
	}
	program := filepath.Join(dir.Path, "qemu-system-test")
	if err := os.Symlink(self, program); err != nil && !errors.Is(err, fs.ErrExist) {
		return proc.Handle{}, err
	}
	return proc.Detach(proc.Spec{Path: program, Args: []string{"-drive", "file=" + dir.Disk()}, Env: []string{envRole + "=vmm"}})
}

func serveRequest(conn net.Conn, dir statedir.VMDir, handles machine.Handles, stubborn bool) {
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	var req machine.Request
	if err != nil || json.Unmarshal(line, &req) != nil {
		return
	}
	switch {
	case req.Status != nil, req.Ready != nil:
		_ = json.NewEncoder(conn).Encode(machine.Response{Status: &machine.Status{Phase: machine.PhaseReady, Accel: "tcg"}})
		conn.Close()
	case req.Shutdown != nil && !stubborn:
		exit := banger.Exit{Cause: banger.ExitKilled, At: time.Now().UTC()}
		err := errors.Join(handles.VMM.Kill(context.Background()), writeJSON(dir.ExitRecord(), exit), json.NewEncoder(conn).Encode(machine.Response{Exit: &exit}))
		if err != nil {
			panic(err)
		}
		os.Exit(0)
	}
}

func writeJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, text, 0o600)
}

// launch starts a supervisor in this role.
func launch(t *testing.T, role string) Supervisors {
	t.Helper()
	t.Setenv(envRole, role)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := Supervisors{Dir: newStateDir(t), Program: self}
	dir := s.Dir.VM(homeID)
	if err := errors.Join(os.Mkdir(dir.Path, 0o700), writeJSON(dir.ExitRecord(), banger.Exit{Cause: banger.ExitPanic})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Finish(context.Background(), homeID, 0); err != nil {
			t.Errorf("Finish: %v", err)
		}
	})
	if err := s.Launch(t.Context(), machine.Config{ID: homeID, Dir: dir.Path}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s Supervisors) wantLiving(t *testing.T, wantSupervisor, wantVMM bool) machine.Handles {
	t.Helper()
	handles, supervisor, vmm, err := s.Handles(homeID)
	if err != nil || supervisor != wantSupervisor || vmm != wantVMM {
		t.Fatalf("Handles = %+v, %v, %v, %v, want supervisor %v, VMM %v", handles, supervisor, vmm, err, wantSupervisor, wantVMM)
	}
	return handles
}

func TestSupervisor(t *testing.T) {
	s := launch(t, "obedient")
	if exit, err := s.ExitRecord(homeID); exit != nil || err != nil {
		t.Errorf("ExitRecord = %+v, %v: it is of the run before", exit, err)
	}
	if status, err := s.Ready(t.Context(), homeID); err != nil || status.Phase != machine.PhaseReady {
		t.Fatalf("Ready = %+v, %v", status, err)
	}
	first := s.wantLiving(t, true, true)
	if err := first.Supervisor.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantLiving(t, false, true)
	if _, err := s.Status(t.Context(), homeID); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Status without a supervisor = %v, want unavailable", err)
	}
	if err := s.Relaunch(t.Context(), homeID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Status(t.Context(), homeID); err != nil {
		t.Fatal(err)
	}
	if second := s.wantLiving(t, true, true); second.VMM != first.VMM || second.Supervisor == first.Supervisor {
		t.Errorf("taken over: %+v, before %+v", second, first)
	}
	if exit, err := s.Shutdown(t.Context(), homeID, time.Second); err != nil || exit.Cause != banger.ExitKilled {
		t.Errorf("Shutdown = %+v, %v", exit, err)
	}
	if exit, err := s.ExitRecord(homeID); err != nil || exit == nil || exit.Cause != banger.ExitKilled {
		t.Errorf("ExitRecord = %+v, %v", exit, err)
	}
	if err := s.Finish(t.Context(), homeID, time.Minute); err != nil {
		t.Errorf("Finish: %v", err)
	}
	s.wantLiving(t, false, false)
}

// A supervisor that lives and does not answer gives way to another; a run is not launched beside a living one.
func TestSupervisorHangs(t *testing.T) {
	s := launch(t, "stubborn")
	if _, err := s.Ready(t.Context(), homeID); err != nil {
		t.Fatal(err)
	}
	first := s.wantLiving(t, true, true)
	if err := s.Launch(t.Context(), machine.Config{ID: homeID}); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Launch beside a living run = %v, want a conflict", err)
	}
	if err := s.Relaunch(t.Context(), homeID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ready(t.Context(), homeID); err != nil {
		t.Fatal(err)
	}
	if second := s.wantLiving(t, true, true); second.VMM != first.VMM || second.Supervisor == first.Supervisor {
		t.Errorf("taken over: %+v, before %+v", second, first)
	}
}

// Whatever the supervisor is at, Finish ends it and its VMM.
func TestFinish(t *testing.T) {
	t.Run("stubborn", func(t *testing.T) {
		s := launch(t, "stubborn")
		if _, err := s.Ready(t.Context(), homeID); err != nil {
			t.Fatal(err)
		}
		if err := s.Finish(t.Context(), homeID, time.Millisecond); err != nil {
			t.Errorf("Finish: %v", err)
		}
		s.wantLiving(t, false, false)
	})
	t.Run("just started", func(t *testing.T) {
		s := launch(t, "obedient")
		if err := s.Finish(t.Context(), homeID, time.Millisecond); err != nil {
			t.Errorf("Finish: %v", err)
		}
		s.wantLiving(t, false, false)
	})
	t.Run("never started", func(t *testing.T) {
		s := Supervisors{Dir: newStateDir(t), Program: "/nonexistent"}
		if err := s.Finish(t.Context(), homeID, 0); err != nil {
			t.Errorf("Finish: %v", err)
		}
	})
}

func TestLaunchFails(t *testing.T) {
	s := Supervisors{Dir: newStateDir(t), Program: "/nonexistent/banger-machine"}
	dir := s.Dir.VM(homeID)
	if err := os.Mkdir(dir.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Launch(t.Context(), machine.Config{ID: homeID}); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Launch = %v, want unavailable", err)
	}
}

// What handles.json can't tell is found by other means: nothing is torn down under a VMM that lives, and everything goes on.
func TestDamagedHandles(t *testing.T) {
	for _, text := range []string{"", "{}", "\x00\x00\x00\x00"} {
		s := launch(t, "obedient")
		if _, err := s.Ready(t.Context(), homeID); err != nil {
			t.Fatal(err)
		}
		first := s.wantLiving(t, true, true)
		damage := func() {
			if err := os.WriteFile(s.Dir.VM(homeID).Handles(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.Damage(homeID); !errors.Is(err, banger.ErrCorrupt) {
				t.Errorf("%q: Damage = %v, want corrupt", text, err)
			}
		}
		damage()
		if got := s.wantLiving(t, true, true); got.Supervisor != first.Supervisor || got.VMM != first.VMM {
			t.Errorf("%q: found %+v, want %+v", text, got, first)
		}
		if err := s.Launch(t.Context(), machine.Config{ID: homeID}); !errors.Is(err, banger.ErrConflict) {
			t.Errorf("%q: Launch beside a living run = %v, want a conflict", text, err)
		}
		if err := first.Supervisor.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.wantLiving(t, false, true)
		if err := s.Relaunch(t.Context(), homeID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ready(t.Context(), homeID); err != nil {
			t.Fatal(err)
		}
		if second := s.wantLiving(t, true, true); second.VMM != first.VMM || s.Damage(homeID) != nil {
			t.Errorf("%q: taken over: %+v, before %+v; damage %v", text, second, first, s.Damage(homeID))
		}
		damage()
		if err := s.Finish(t.Context(), homeID, 0); err != nil {
			t.Errorf("%q: Finish: %v", text, err)
		}
		if first.VMM.Alive() || s.Damage(homeID) != nil {
			t.Errorf("%q: after Finish the VMM lives: %v, damage %v", text, first.VMM.Alive(), s.Damage(homeID))
		}
	}
}
