package smoke

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/testenv"
)

// terminal is banger on a real pseudo terminal.
type terminal struct {
	t      *testing.T
	tty    io.ReadWriter
	screen chan []byte
	seen   strings.Builder
}

// expect reads until the screen shows text that it did not show at the last expect.
func (x *terminal) expect(text string) {
	x.t.Helper()
	x.until(text)
}

// until reads as expect does and gives what was shown before text.
func (x *terminal) until(text string) string {
	x.t.Helper()
	limit := time.After(time.Minute)
	for !strings.Contains(x.seen.String(), text) {
		select {
		case b, ok := <-x.screen:
			if !ok {
				x.t.Fatalf("the terminal closed before %q; it showed %q", text, x.seen.String())
			}
			x.seen.Write(b)
		case <-limit:
			x.t.Fatalf("no %q on the terminal; it shows %q", text, x.seen.String())
		}
	}
	before, rest, _ := strings.Cut(x.seen.String(), text)
	x.seen.Reset()
	x.seen.WriteString(rest)
	return before
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.tty, text); err != nil {
		x.t.Fatal(err)
	}
}

// watchTerminal reads what a terminal shows.
func watchTerminal(t *testing.T, tty io.ReadWriter) *terminal {
	x := &terminal{t: t, tty: tty, screen: make(chan []byte, 1024)}
	go func() {
		defer close(x.screen)
		for {
			b := make([]byte, 4096)
			n, err := tty.Read(b)
			if n > 0 {
				x.screen <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return x
}

// A shell on a terminal: a pty of the right size, resized with the window, Ctrl-C to the guest's process, exit status.
func TestShellOnATerminal(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, "vm", "run", "--rm", "--name", "term")
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	attr := cmd.SysProcAttr
	tty, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 30, Cols: 100}, withTerminal(attr))
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	x := watchTerminal(t, tty)
	x.expect("ready in")
	x.expect("#")
	x.send("stty size; tty; echo TERM=$TERM\r")
	x.expect("30 100")
	x.expect("/dev/pts/")
	x.expect("TERM=xterm-256color")
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 50, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	testenv.WaitFor(t, time.Minute, "the new size", func() bool {
		x.send("stty size; echo si''zed\r")
		return strings.Contains(x.until("sized"), "50 132")
	})
	x.send("sleep 1000; echo interr''upted\r")
	time.Sleep(500 * time.Millisecond)
	x.send("\x03")
	x.send("echo al''ive\r")
	x.expect("alive")
	x.send("exit 3\r")
	for range x.screen {
	}
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 3 {
		t.Errorf("exit status %d, want 3", got)
	}
	wantNothingLeft(t, w)
}
