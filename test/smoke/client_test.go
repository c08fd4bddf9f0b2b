package smoke

import (
	"os/exec"
	"path/filepath"
	"testing"

	"banger/internal/testenv"
)

// A program of another module makes a VM, runs a command in it and deletes it through package client; it starts the daemon that $PATH names.
func TestGoClient(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	program := filepath.Join(w.User.Dir(t), "outside")
	testenv.BuildOutside(t, program)
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env, cmd.Dir = w.Command(t.Context()).Env, w.State
	w.User.As(cmd)
	r := testenv.Capture(t, cmd)
	if want := "hello from outside\nstatus 3\ndeleted outside\n"; r.Status != 0 || r.Stdout != want {
		t.Errorf("status %d, %q, want %q\n%s", r.Status, r.Stdout, want, r.Stderr)
	}
	wantNothingLeft(t, w)
}
