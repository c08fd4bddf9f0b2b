package machine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

// serve answers requests on a socket by handle, until the test's end.
func serve(t *testing.T, handle func(*net.UnixConn, *bufio.Reader, Request)) Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "machine.sock")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := Accept(listener)
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				if req, err := ReadRequest(r); err == nil {
					handle(conn, r, req)
				}
			}()
		}
	}()
	return Client{Socket: path}
}

// serveExec answers exec requests by run.
func serveExec(t *testing.T, run func(context.Context, banger.ExecRequest, Stdio) (banger.ExecResult, error)) Client {
	return serve(t, func(conn *net.UnixConn, r *bufio.Reader, req Request) {
		ServeExec(conn, r, func(ctx context.Context, stdio Stdio) (banger.ExecResult, error) { return run(ctx, *req.Exec, stdio) })
	})
}

func TestExecStreams(t *testing.T) {
	large := make([]byte, 3*stdinWindow+1)
	rand.Read(large)
	client := serveExec(t, func(_ context.Context, req banger.ExecRequest, stdio Stdio) (banger.ExecResult, error) {
		n, err := io.Copy(stdio.Stdout, stdio.Stdin)
		if err != nil || n != int64(len(large)) {
			t.Errorf("stdin: %d bytes, %v", n, err)
		}
		io.WriteString(stdio.Stderr, req.Argv[0])
		return banger.ExecResult{Status: 42}, nil
	})
	var out, errs bytes.Buffer
	result, err := client.Exec(t.Context(), banger.ExecRequest{Argv: []string{"name"}}, Stdio{Stdin: bytes.NewReader(large), Stdout: &out, Stderr: &errs})
	if err != nil || result != (banger.ExecResult{Status: 42}) || errs.String() != "name" || !bytes.Equal(out.Bytes(), large) {
		t.Errorf("Exec = %+v, %v, stderr %q, %d bytes of stdout, want status 42 and stdin back", result, err, errs.String(), out.Len())
	}
}

// A command that does not read its stdin still gets signals and sizes.
func TestExecControlPassesStdin(t *testing.T) {
	client := serveExec(t, func(_ context.Context, _ banger.ExecRequest, stdio Stdio) (banger.ExecResult, error) {
		size := <-stdio.Resize
		return banger.ExecResult{Signal: <-stdio.Signal, Status: int(size.Rows)*1000 + int(size.Cols)}, nil
	})
	resize, signal := make(chan banger.PTY), make(chan string)
	stdin, more := io.Pipe()
	go func() {
		for range 2 * stdinWindow / 1024 { // the last writes block: nobody takes them
			if _, err := more.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	}()
	go func() {
		resize <- banger.PTY{Rows: 50, Cols: 132}
		signal <- "NONSENSE"
		signal <- "TERM"
	}()
	result, err := client.Exec(t.Context(), banger.ExecRequest{}, Stdio{Stdin: stdin, Resize: resize, Signal: signal})
	stdin.Close()
	if want := (banger.ExecResult{Signal: "TERM", Status: 50132}); err != nil || result != want {
		t.Errorf("Exec = %+v, %v, want %+v", result, err, want)
	}
}

func TestExecEnds(t *testing.T) {
	started, hungUp := make(chan bool, 1), make(chan error, 1)
	client := serveExec(t, func(ctx context.Context, req banger.ExecRequest, stdio Stdio) (banger.ExecResult, error) {
		switch req.Argv[0] {
		case "fail":
			return banger.ExecResult{}, &banger.Error{Kind: banger.ErrRefused, Op: "exec", Hint: "ask nicely", Err: errors.New("no")}
		case "large":
			return banger.ExecResult{Error: strings.Repeat("x", maxPayload)}, nil
		case "write":
			for ctx.Err() == nil {
				if _, err := stdio.Stdout.Write([]byte("y\n")); err != nil {
					break
				}
			}
		}
		started <- true
		<-ctx.Done()
		hungUp <- context.Cause(ctx)
		return banger.ExecResult{}, ctx.Err()
	})
	if _, err := client.Exec(t.Context(), banger.ExecRequest{Argv: []string{"fail"}}, Stdio{}); !errors.Is(err, banger.ErrRefused) || banger.HintOf(err) != "ask nicely" {
		t.Errorf("a refused command: %v, hint %q", err, banger.HintOf(err))
	}
	if _, err := client.Exec(t.Context(), banger.ExecRequest{Argv: []string{"large"}}, Stdio{}); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("a result that is too large: %v, want ErrInvalid", err)
	}
	if _, err := client.Exec(t.Context(), banger.ExecRequest{Argv: []string{strings.Repeat("x", maxLine)}}, Stdio{}); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("a request that is too large: %v, want ErrInvalid", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	if _, err := client.Exec(ctx, banger.ExecRequest{Argv: []string{"wait"}}, Stdio{}); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("an interrupted command: %v, want ErrInterrupted", err)
	}
	if cause := <-hungUp; !errors.Is(cause, errClientGone) {
		t.Errorf("the command was hung up for %v, want errClientGone", cause)
	}

	broken := errors.New("broken")
	if _, err := client.Exec(t.Context(), banger.ExecRequest{Argv: []string{"write"}}, Stdio{Stdout: failing{broken}}); !errors.Is(err, broken) {
		t.Errorf("a stdout that fails: %v", err)
	}
	<-hungUp
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestExecMachineGone(t *testing.T) {
	client := serve(t, func(conn *net.UnixConn, _ *bufio.Reader, _ Request) {
		WriteResponse(conn, Response{})
		(&frameWriter{w: conn}).write(frameStdout, []byte("x"))
	})
	if _, err := client.Exec(t.Context(), banger.ExecRequest{}, Stdio{}); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Exec = %v, want ErrUnavailable", err)
	}
}

func TestServeExecRefusesBrokenFrames(t *testing.T) {
	overflow := &bytes.Buffer{}
	for range stdinWindow/maxPayload + 1 {
		(&frameWriter{w: overflow}).write(frameStdin, make([]byte, maxPayload))
	}
	for _, test := range []struct {
		name  string
		input string
		want  error
	}{
		{"unknown kind", "?\x00\x00\x00\x00", banger.ErrCorrupt},
		{"too long", "i\xff\xff\xff\xff", banger.ErrCorrupt},
		{"size of one byte", "w\x00\x00\x00\x01x", banger.ErrCorrupt},
		{"beyond the window", overflow.String(), banger.ErrCorrupt},
		{"cut off", "i\x00\x00\x00\x09abc", errClientGone},
		{"nothing", "", errClientGone},
	} {
		t.Run(test.name, func(t *testing.T) {
			var cause error
			ServeExec(io.Discard, bufio.NewReader(strings.NewReader(test.input)), func(ctx context.Context, _ Stdio) (banger.ExecResult, error) {
				<-ctx.Done()
				cause = context.Cause(ctx)
				return banger.ExecResult{}, nil
			})
			if !errors.Is(cause, test.want) {
				t.Errorf("the command ends for %v, want %v", cause, test.want)
			}
		})
	}
}

// What is read as frames and written again is the same.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("i\x00\x00\x00\x03abce\x00\x00\x00\x00"))
	f.Add([]byte("o\x00\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, input []byte) {
		frames := frameReader{r: bufio.NewReader(bytes.NewReader(input))}
		var again bytes.Buffer
		out := frameWriter{w: &again}
		for {
			frame, err := frames.next()
			if err != nil {
				break
			}
			if err := out.write(frame.kind, frame.payload); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(input, again.Bytes()) {
			t.Errorf("frames of %q are %q", input, again.Bytes())
		}
	})
}

// Whatever a client sends, the command's streams stay bounded and its end arrives.
func FuzzServeExec(f *testing.F) {
	f.Add([]byte("i\x00\x00\x00\x03abcw\x00\x00\x00\x04\x00\x01\x00\x02k\x00\x00\x00\x03INTe\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, input []byte) {
		var answer bytes.Buffer
		var got int64
		err := ServeExec(&answer, bufio.NewReader(bytes.NewReader(input)), func(ctx context.Context, stdio Stdio) (banger.ExecResult, error) {
			got, _ = io.Copy(io.Discard, stdio.Stdin)
			return banger.ExecResult{}, nil
		})
		if err != nil || got > int64(len(input)) || !bytes.HasSuffix(answer.Bytes(), []byte(`{"status":0}`)) {
			t.Errorf("ServeExec = %v, %d bytes of stdin, answer %q", err, got, answer.Bytes())
		}
	})
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte(`{"exec":{"argv":["true"]}}` + "\nrest"))
	f.Add([]byte(`{"shutdown":{"timeout_ns":5}}` + "\n"))
	f.Add([]byte(`{"status":{},"wait":{}}` + "\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		req, err := ReadRequest(bufio.NewReader(bytes.NewReader(input)))
		if err != nil {
			return
		}
		var line bytes.Buffer
		if err := writeLine(&line, req); err != nil {
			return // escapes made it too long
		}
		first := line.String()
		again, err := ReadRequest(bufio.NewReader(&line))
		if err != nil {
			t.Fatalf("%q of %q does not decode: %v", first, input, err)
		}
		var second bytes.Buffer
		writeLine(&second, again)
		if second.String() != first {
			t.Errorf("%q becomes %q", first, second.String())
		}
	})
}

// A socket that others may reach by its mode does not let them in.
func TestAcceptRefusesOthers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skipf("needs root: to connect as somebody else")
	}
	client := serve(t, func(conn *net.UnixConn, _ *bufio.Reader, _ Request) { WriteResponse(conn, Response{Status: &Status{}}) })
	if err := errors.Join(os.Chmod(filepath.Dir(client.Socket), 0o755), os.Chmod(filepath.Dir(filepath.Dir(client.Socket)), 0o755), os.Chmod(client.Socket, 0o666)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("Status as the owner = %v", err)
	}
	answer := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			answer <- errno
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: client.Socket})
		}
		if err != nil {
			answer <- err
			return
		}
		defer unix.Close(fd)
		n, err := unix.Read(fd, make([]byte, 1))
		if n > 0 {
			err = errors.New("the machine answers")
		}
		answer <- err
	}()
	if err := <-answer; err != nil {
		t.Errorf("connection of another user: %v, want it closed without a word", err)
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "machine.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := first.File()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket after Close: %v, %v, want it there with mode 0600", info, err)
	}
	client := Client{Socket: path}
	heir, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	go func() {
		if conn, err := Accept(heir.(*net.UnixListener)); err == nil {
			ReadRequest(bufio.NewReader(conn))
			WriteResponse(conn, Response{Status: &Status{Phase: PhaseReady}})
			conn.Close()
		}
	}()
	if status, err := client.Status(t.Context()); err != nil || status.Phase != PhaseReady {
		t.Errorf("Status by the heir of the listener = %+v, %v", status, err)
	}
	heir.(*net.UnixListener).SetUnlinkOnClose(false)
	heir.Close()
	if _, err := client.Status(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Status of a dead socket = %v, want ErrUnavailable", err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatalf("Listen over a stale socket: %v", err)
	}
	second.Close()
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Listen over a file = %v, want ErrConflict", err)
	}
}
