package supervisor

import (
	"bytes"
	"os"
	"testing"

	"banger/internal/machine"
)

// Who follows the console sees every byte of every run once, in order.
func TestFollowConsole(t *testing.T) {
	w := newWorld(t, agent)
	var got bytes.Buffer // read when nobody writes any more
	over, followed := make(chan struct{}), make(chan error, 1)
	go func() { followed <- w.client.FollowConsole(t.Context(), machine.ConsoleRequest{}, &got, over) }()
	for range 3 {
		done := w.start(t.Context())
		w.ready()
		if _, err := w.client.Shutdown(t.Context(), patience); err != nil {
			t.Fatal(err)
		}
		w.finish(done)
		if err := os.Remove(w.dir.Handles()); err != nil { // as for a new run
			t.Fatal(err)
		}
	}
	close(over)
	if err := <-followed; err != nil {
		t.Error(err)
	}
	var whole bytes.Buffer
	if _, err := w.client.Console(t.Context(), machine.ConsoleRequest{}, &whole); err != nil || bytes.Count(whole.Bytes(), []byte("hello from the kernel")) != 3 {
		t.Fatalf("Console = %q, %v", whole.String(), err)
	}
	if got.String() != whole.String() {
		t.Errorf("followed:\n%s\nwant:\n%s", got.String(), whole.String())
	}
}
