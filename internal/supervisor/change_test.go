package supervisor

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"banger"
)

func TestRename(t *testing.T) {
	w := newWorld(t, agent)
	done := w.start(t.Context())
	w.ready()
	<-w.identified
	if err := w.client.Rename(t.Context(), "webbox"); err != nil {
		t.Fatal(err)
	}
	if id := <-w.identified; id.HostName != "webbox" || len(id.UserKeys) != 1 || id.Env["FROM_CONFIG"] != "yes" {
		t.Errorf("identity %+v, want the same with another host name", id)
	}
	if status := w.status(); status.Name != "webbox" {
		t.Errorf("status %+v", status)
	}
	if err := w.client.Rename(t.Context(), "No_Good"); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("Rename to a bad name = %v", err)
	}
	if _, out, err := w.exec("echo", "still"); err != nil || out != "still\n" {
		t.Errorf("exec afterwards: %q, %v", out, err)
	}
	w.client.Shutdown(t.Context(), 0)
	w.finish(done)
}

// A guest that is not there yet gets the name when it comes.
func TestRenameBeforeTheGuest(t *testing.T) {
	come := make(chan bool)
	w := newWorld(t, func(w *world, g guestInMemory) {
		<-come
		agent(w, g)
	})
	done := w.start(t.Context())
	w.awaitLaunch()
	if err := w.client.Rename(t.Context(), "webbox"); err != nil {
		t.Fatal(err)
	}
	close(come)
	w.ready()
	if id := <-w.identified; id.HostName != "webbox" {
		t.Errorf("identity %+v", id)
	}
	w.client.Shutdown(t.Context(), 0)
	w.finish(done)
}

// A VMM that a client's signal ends was killed; one that ends otherwise crashed, as TestEnds has it.
func TestSignal(t *testing.T) {
	w := newWorld(t, agent)
	done := w.start(t.Context())
	w.ready()
	if err := w.client.Signal(t.Context(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, out, err := w.exec("echo", "still"); err != nil || out != "still\n" {
		t.Errorf("exec after a signal that ends nothing: %q, %v", out, err)
	}
	if err := w.client.Signal(t.Context(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := w.finish(done); exit.Cause != banger.ExitKilled || !strings.Contains(exit.Detail, "signal 15") {
		t.Errorf("exit %+v, want killed by signal 15", exit)
	}
	if err := w.client.Signal(context.Background(), syscall.SIGTERM); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Signal after the end = %v, want unavailable", err)
	}
}
