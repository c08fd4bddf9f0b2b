package mcp

import (
	"archive/tar"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"banger"
)

var update = flag.Bool("update", false, "write docs/agents.md")

func execAgent(t *testing.T, exec func(ctx context.Context, cmd Command) (int, error)) agent {
	h := newHost()
	h.addVM("one", map[string]string{Label: Made})
	h.exec = exec
	return connect(t, h, Config{})
}

func TestExec(t *testing.T) {
	a := execAgent(t, func(_ context.Context, cmd Command) (int, error) {
		in, _ := io.ReadAll(cmd.Stdin)
		fmt.Fprintf(cmd.Stdout, "%q %q %s %s %s\x1b[m\xff\r\n\tü", cmd.Argv, in, cmd.Env["A"], cmd.Dir, cmd.User)
		fmt.Fprint(cmd.Stderr, "oh")
		return 3, nil
	})
	var out execOut
	a.must("vm_exec", m{"vm": "one", "argv": []string{"a b", ""}, "stdin": "in", "env": m{"A": "x=y"}, "cwd": "/tmp", "user": "me"}, &out)
	want := `["a b" ""] "in" x=y /tmp me\x1b[m\xff` + "\n\tü"
	if out.Stdout != want || out.Stderr != "oh" || out.ExitStatus != 3 || out.Truncated || out.StderrBytes != 2 {
		t.Errorf("%+v, want stdout %q", out, want)
	}
	for _, args := range []m{{"argv": []string{}}, {"argv": []string{"x"}, "timeout_seconds": -1}, {"argv": []string{"x"}, "timeout_seconds": maxTimeout + 1},
		{"argv": []string{"x"}, "max_output_bytes": maxOutput + 1}, {"argv": []string{"x"}, "stdin": strings.Repeat("x", maxStdin+1)}} {
		args["vm"] = "one"
		if text := a.try("vm_exec", args, nil); !strings.HasPrefix(text, "invalid: ") {
			t.Errorf("vm_exec %.100v: %q", args, text)
		}
	}
}

func TestExecNotStarted(t *testing.T) {
	a := execAgent(t, func(context.Context, Command) (int, error) { return 127, errors.New("no such program") })
	var out execOut
	a.must("vm_exec", m{"vm": "one", "argv": []string{"nosuch"}}, &out)
	if out.ExitStatus != 127 || out.Error != "no such program" {
		t.Errorf("%+v", out)
	}
	a = execAgent(t, func(context.Context, Command) (int, error) {
		return 0, &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("gone"), Hint: "look"}
	})
	a.refuses("vm_exec", m{"vm": "one", "argv": []string{"x"}}, "unavailable: gone\nhint: look")
}

// What is too long is shown in part, and can be read as a whole.
func TestLongOutput(t *testing.T) {
	whole := strings.Repeat("0123456789äöü€\n", 2000)
	a := execAgent(t, func(_ context.Context, cmd Command) (int, error) {
		_, err := io.Copy(cmd.Stdout, strings.NewReader(whole))
		return 0, err
	})
	var out execOut
	a.must("vm_exec", m{"vm": "one", "argv": []string{"x"}, "max_output_bytes": 1001}, &out)
	if !out.Truncated || out.OutputID == "" || out.StdoutBytes != int64(len(whole)) {
		t.Fatalf("%+v", out)
	}
	head, rest, ok := strings.Cut(out.Stdout, "\n[")
	_, tail, ok2 := strings.Cut(rest, "]\n")
	if !ok || !ok2 || !strings.HasPrefix(whole, head) || !strings.HasSuffix(whole, tail) || len(head) < 495 || len(tail) < 495 || len(head)+len(tail) > 1001 {
		t.Errorf("shown: %q", out.Stdout)
	}
	if !strings.Contains(rest, fmt.Sprintf("%d bytes left out here: vm_output with output_id %q", len(whole)-len(head)-len(tail), out.OutputID)) {
		t.Errorf("it does not say where the rest is: %q", rest[:200])
	}
	var read strings.Builder
	for at, end := int64(0), false; !end; {
		var part outputOut
		a.must("vm_output", m{"output_id": out.OutputID, "offset": at, "limit": 777}, &part)
		read.WriteString(part.Text)
		at, end = part.NextOffset, part.End
	}
	if read.String() != whole {
		t.Errorf("read %d bytes that are not the %d of the command", read.Len(), len(whole))
	}
	for range maxOutputs {
		a.must("vm_exec", m{"vm": "one", "argv": []string{"x"}}, nil)
	}
	a.refuses("vm_output", m{"output_id": out.OutputID}, "not_found", "vm_read_file")
}

func TestTimeout(t *testing.T) {
	a := execAgent(t, func(ctx context.Context, cmd Command) (int, error) {
		fmt.Fprint(cmd.Stdout, "so far")
		<-ctx.Done()
		return 0, &banger.Error{Kind: banger.ErrInterrupted, Err: ctx.Err()}
	})
	var out execOut
	a.must("vm_exec", m{"vm": "one", "argv": []string{"x"}, "timeout_seconds": 1}, &out)
	if !out.TimedOut || out.ExitStatus != -1 || out.Stdout != "so far" {
		t.Errorf("%+v", out)
	}
}

func TestCancel(t *testing.T) {
	begun, hungUp := make(chan struct{}), make(chan struct{})
	a := execAgent(t, func(ctx context.Context, _ Command) (int, error) {
		close(begun)
		<-ctx.Done()
		close(hungUp)
		return 0, &banger.Error{Kind: banger.ErrInterrupted, Err: ctx.Err()}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	if _, err := a.session.CallTool(ctx, &sdk.CallToolParams{Name: "vm_exec", Arguments: m{"vm": "one", "argv": []string{"x"}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended with %v", err)
	}
	<-hungUp
}

func TestFiles(t *testing.T) {
	h := newHost()
	h.addVM("one", map[string]string{Label: Made})
	a := connect(t, h, Config{})
	text := strings.Repeat("größer als €\r\n", 1000)
	a.must("vm_write_file", m{"vm": "one", "path": "/root/x", "content": text, "mode": "0755"}, nil)
	var read strings.Builder
	for at, end := int64(0), false; !end; {
		var part readOut
		a.must("vm_read_file", m{"vm": "one", "path": "/root/x", "offset": at, "limit": 101}, &part)
		if part.Encoding != asText || part.Mode != "0755" || part.Size != int64(len(text)) {
			t.Fatalf("%+v", part)
		}
		read.WriteString(part.Content)
		at, end = part.NextOffset, part.End
	}
	if read.String() != text {
		t.Errorf("read %d bytes, other than the %d that were written", read.Len(), len(text))
	}
	var part readOut
	a.must("vm_read_file", m{"vm": "one", "path": "/root/x", "offset": len(text) + 5}, &part)
	if part.Content != "" || !part.End {
		t.Errorf("behind the end: %+v", part)
	}
	a.must("vm_write_file", m{"vm": "one", "path": "/root/x", "content": "AP8b", "encoding": "base64"}, nil)
	if got := h.data["/root/x"]; string(got) != "\x00\xff\x1b" || h.files["/root/x"].Mode != 0o755 {
		t.Errorf("wrote %q, mode %o", got, h.files["/root/x"].Mode)
	}
	a.must("vm_read_file", m{"vm": "one", "path": "/root/x"}, &part)
	if part.Content != "AP8b" || part.Encoding != asBase64 {
		t.Errorf("read %+v", part)
	}
	a.must("vm_write_file", m{"vm": "one", "path": "/root/a/b/c", "content": ""}, nil)
	if h.files["/root/a/b/c"] == nil || h.files["/root/a/b/c"].Mode != 0o644 || !h.dirs["/root/a/b"] {
		t.Errorf("with parents: %v %v", h.files, h.dirs)
	}
	a.refuses("vm_read_file", m{"vm": "one", "path": "/root"}, "it is a directory")
	a.refuses("vm_read_file", m{"vm": "one", "path": "/root/nosuch"}, "not_found")
	h.files["/root/link"] = &tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "x"}
	a.refuses("vm_read_file", m{"vm": "one", "path": "/root/link"}, "no regular file")
	for _, args := range []m{{"path": "x"}, {"path": "/"}, {"path": "/x/"}, {"path": "/x", "mode": "4755"}, {"path": "/x", "mode": "9"}, {"path": "/x", "encoding": "latin1"},
		{"path": "/x", "encoding": "base64", "content": "!"}, {"path": "/x\x00"}, {"path": "/x", "content": strings.Repeat("x", maxWrite+1)}} {
		args["vm"] = "one"
		if args["content"] == nil {
			args["content"] = "x"
		}
		if text := a.try("vm_write_file", args, nil); !strings.HasPrefix(text, "invalid: ") {
			t.Errorf("vm_write_file %.100v: %q", args, text)
		}
	}
}

// FuzzCapture holds that output read in pieces of any size is the output.
func FuzzCapture(f *testing.F) {
	f.Add([]byte("plain"), uint8(1))
	f.Add([]byte("€€\xe2\x82 \xf0\x9f\x98\x80\x80\x80\x80\x80"), uint8(3))
	f.Fuzz(func(t *testing.T, whole []byte, limit uint8) {
		c, err := newCapture()
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		if _, err := c.Write(whole); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for int64(len(got)) < c.kept() {
			part, err := c.read(int64(len(got)), int(limit)+1)
			if err != nil || len(part) == 0 {
				t.Fatalf("read at %d: %q, %v", len(got), part, err)
			}
			got = append(got, part...)
		}
		if string(got) != string(whole) {
			t.Errorf("read %q, want %q", got, whole)
		}
	})
}
