package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"banger"
)

// What is typed reaches the guest, from every client; what the guest writes reaches them all, from its last words before on.
func TestAttach(t *testing.T) {
	typed := make(chan string)
	w := newWorld(t, func(w *world, g guestInMemory) {
		go func() {
			for line := []byte{}; ; {
				select {
				case p := <-g.Typed():
					if line = append(line, p...); strings.HasSuffix(string(line), "\r") {
						typed <- string(line)
						fmt.Fprintf(g, "heard %q\r\n", line)
						line = nil
					}
				case <-g.Gone():
					return
				}
			}
		}()
		agent(w, g)
	})
	w.start(t.Context())
	w.ready()
	for n := range 2 {
		conn, err := w.client.Attach(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "banger-machine:") && !strings.Contains(line, "hello") {
			t.Errorf("the console begins with %q, %v, want what it has shown", line, err)
		}
		want := fmt.Sprintf("line %d\x03\r", n)
		io.WriteString(conn, want[:3])
		io.WriteString(conn, want[3:])
		if got := <-typed; got != want {
			t.Errorf("the guest reads %q, want %q", got, want)
		}
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == fmt.Sprintf("heard %q\r\n", want) {
				break
			}
		}
	}
	conn, err := w.client.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Shutdown(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the end of the run: %v, want the end of the console", err)
	}
	if _, err := w.client.Attach(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Attach after the end = %v, want ErrUnavailable", err)
	}
}
