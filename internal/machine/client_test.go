package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
)

func TestClientAnswers(t *testing.T) {
	exit := banger.Exit{Cause: banger.ExitPowerOff, Detail: "done", At: time.Unix(1e9, 0).UTC()}
	var shutdown ShutdownRequest
	client := serve(t, func(conn *net.UnixConn, r *bufio.Reader, req Request) {
		switch {
		case req.Status != nil, req.Ready != nil:
			WriteResponse(conn, Response{Status: &Status{Phase: PhaseEnded, Exit: &exit}})
		case req.Shutdown != nil:
			shutdown = *req.Shutdown
			WriteResponse(conn, Response{Exit: &exit})
		case req.Wait != nil:
			WriteResponse(conn, Response{}) // a machine of another version
		case req.Connect != nil && req.Connect.Port == 7:
			io.WriteString(conn, "{}\nfirst ")
			io.Copy(conn, r)
		case req.Connect != nil:
			body := banger.EncodeError(&banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("refused")}, "")
			WriteResponse(conn, Response{Error: &body})
		case req.Console.Follow:
			io.WriteString(conn, "{\"console\":{\"from\":7}}\nall of it")
		default:
			io.WriteString(conn, "{\"console\":{\"from\":7}}\nhalf")
		}
	})
	for name, ask := range map[string]func(context.Context) (Status, error){"Status": client.Status, "Ready": client.Ready} {
		if status, err := ask(t.Context()); err != nil || status.Phase != PhaseEnded || *status.Exit != exit {
			t.Errorf("%s = %+v, %v", name, status, err)
		}
	}
	if got, err := client.Shutdown(t.Context(), time.Second); err != nil || got != exit || shutdown.Timeout != time.Second {
		t.Errorf("Shutdown = %+v, %v, timeout %v", got, err, shutdown.Timeout)
	}
	if _, err := client.Wait(t.Context()); !errors.Is(err, banger.ErrUnsupported) {
		t.Errorf("Wait for an empty answer = %v, want ErrUnsupported", err)
	}
	for follow, want := range map[bool]string{false: "half", true: "all of it"} {
		var got bytes.Buffer
		if end, err := client.Console(t.Context(), ConsoleRequest{Follow: follow}, &got); err != nil || got.String() != want || end != uint64(7+len(want)) {
			t.Errorf("Console(%v) = %q, %d, %v, want %q", follow, got.String(), end, err, want)
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "out")) // into which the kernel itself could copy
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := client.Console(t.Context(), ConsoleRequest{Follow: true}, file); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(file.Name()); err != nil || string(got) != "all of it" {
		t.Errorf("Console into a file = %q, %v", got, err)
	}
	conn, err := client.Connect(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "second")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "first second" {
		t.Errorf("connection says %q, %v", got, err)
	}
	if _, err := client.Connect(t.Context(), 8); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Connect to a refused port = %v, want ErrUnavailable", err)
	}
}

func TestClientWithoutMachine(t *testing.T) {
	dir := t.TempDir()
	client := Client{Socket: filepath.Join(dir, "machine.sock")}
	if _, err := client.Shutdown(t.Context(), 0); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Shutdown = %v, want ErrUnavailable", err)
	}
	if _, err := client.Wait(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Wait = %v, want ErrUnavailable", err)
	}
	var got bytes.Buffer
	if _, err := client.Console(t.Context(), ConsoleRequest{Follow: true}, &got); err != nil || got.Len() > 0 {
		t.Errorf("Console of a VM that never ran = %q, %v", got.String(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "exit.json"), []byte(`{"cause":"panic","at":"2026-01-01T00:00:00Z"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if exit, err := client.Wait(t.Context()); err != nil || exit.Cause != banger.ExitPanic {
		t.Errorf("Wait = %+v, %v, want the record's panic", exit, err)
	}
	ring, err := OpenRing(filepath.Join(dir, "console.ring"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(ring, "last words")
	if end, err := client.Console(t.Context(), ConsoleRequest{Follow: true}, &got); err != nil || got.String() != "last words" || end != 10 {
		t.Errorf("Console = %q, %v, want the ring's content", got.String(), err)
	}
}

func TestClientInterrupted(t *testing.T) {
	asked := make(chan bool)
	client := serve(t, func(conn *net.UnixConn, r *bufio.Reader, _ Request) {
		asked <- true
		io.Copy(io.Discard, r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := client.Wait(ctx); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Wait = %v, want ErrInterrupted", err)
	}
}

// The next command after a supervisor's death waits for the one that takes over, as long as the VM is said to run.
func TestClientBetweenTwoSupervisors(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "machine.sock")
	listen := func() *net.UnixListener {
		l, err := Listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	listen().Close() // of one that was killed: its socket refuses
	asked := 0
	client := Client{Socket: socket, Runs: func(context.Context) bool {
		asked++
		switch asked {
		case 1: // the next is killed while it has the request
			l := listen()
			go func() {
				if conn, err := l.Accept(); err == nil {
					bufio.NewReader(conn).ReadString('\n')
					conn.Close()
				}
				l.Close()
			}()
		case 3:
			l := listen()
			t.Cleanup(func() { l.Close() })
			go func() {
				if conn, err := l.Accept(); err == nil {
					bufio.NewReader(conn).ReadString('\n')
					WriteResponse(conn, Response{Status: &Status{Name: "the new one"}})
					conn.Close()
				}
			}()
		}
		return true
	}}
	if status, err := client.Status(t.Context()); err != nil || status.Name != "the new one" || asked != 3 {
		t.Errorf("Status = %+v, %v after %d questions", status, err, asked)
	}
	listen().Close()
	client.Runs = func(context.Context) bool { return false }
	if _, err := client.Status(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Status of a VM that does not run = %v, want ErrUnavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	client.Runs = func(context.Context) bool { cancel(); return true }
	if _, err := client.Status(ctx); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Status that is interrupted = %v, want ErrInterrupted", err)
	}
}
