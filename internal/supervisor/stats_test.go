package supervisor

import (
	"errors"
	"io"
	"os"
	"testing"

	"banger"
	"banger/internal/machine"
	"banger/internal/proc"
)

// awaitStreams asks until the streams are so: a command's end is told to its client before it is counted.
func (w *world) awaitStreams(want machine.Streams) machine.Stats {
	w.t.Helper()
	for {
		stats, err := w.client.Stats(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		if stats.Streams == want {
			return stats
		}
		if stats.Streams.Begun > want.Begun {
			w.t.Fatalf("streams %+v, want %+v", stats.Streams, want)
		}
	}
}

func TestStats(t *testing.T) {
	w := newWorld(t, agent)
	done := w.start(t.Context())
	w.ready()
	stats := w.awaitStreams(machine.Streams{})
	if stats.VMM == nil || stats.VMM.Clock == 0 || stats.Machine.ResidentBytes < 1<<20 || stats.Machine.Clock == 0 {
		t.Errorf("stats %+v", stats)
	}

	began, ended := make(chan bool), make(chan error, 1)
	r, stdin := io.Pipe()
	go func() {
		_, err := w.client.Exec(t.Context(), banger.ExecRequest{Argv: []string{"sh", "-c", "echo begun; cat"}}, machine.Stdio{Stdin: r, Stdout: &first{got: began}})
		ended <- err
	}()
	<-began
	w.awaitStreams(machine.Streams{Open: 1, Begun: 1})
	conn, err := w.client.Connect(t.Context(), portEcho)
	if err != nil {
		t.Fatal(err)
	}
	w.awaitStreams(machine.Streams{Open: 2, Begun: 2})
	console, err := w.client.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.awaitStreams(machine.Streams{Open: 3, Begun: 3})
	conn.Close()
	console.Close()
	stdin.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	w.awaitStreams(machine.Streams{Begun: 3})

	if _, err := w.client.Shutdown(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	w.finish(done)
	if _, err := w.client.Stats(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Stats after the end = %v, want ErrUnavailable", err)
	}
}

// Before there is a VMM nothing is told of one.
func TestStatsWithoutVMM(t *testing.T) {
	w := newWorld(t, agent)
	r := &run{Config: Config{Machine: w.cfg}, dir: w.dir}
	self, err := proc.HandleOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := machine.WriteHandles(w.dir, machine.Handles{Supervisor: self}); err != nil {
		t.Fatal(err)
	}
	if err := r.prepare(); err != nil {
		t.Fatal(err)
	}
	if stats, err := r.stats(); err != nil || stats.VMM != nil || stats.Machine.Clock == 0 {
		t.Errorf("stats = %+v, %v", stats, err)
	}
}
