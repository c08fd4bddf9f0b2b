package mcp

import (
	"context"
	"errors"
	"strings"
	"time"

	"banger"
)

// Limits of commands.
const (
	defaultTimeout = 120   // seconds
	maxTimeout     = 21600 // seconds: six hours
	defaultOutput  = 32 << 10
	maxOutput      = 1 << 20
	maxStdin       = 1 << 20
)

type execIn struct {
	ref
	Argv      []string          `json:"argv" jsonschema:"the program and its arguments, exactly as it gets them: no shell is in between"`
	Cwd       string            `json:"cwd,omitempty" jsonschema:"directory in the VM (default: the first repository that went in, else the user's home)"`
	Env       map[string]string `json:"env,omitempty" jsonschema:"environment variables beside those of the VM; nothing of the host's environment is passed on"`
	User      string            `json:"user,omitempty" jsonschema:"whom it runs as: a name, or uid[:gid] (default: the VM's user, mostly root)"`
	Stdin     string            `json:"stdin,omitempty" jsonschema:"what it reads, at most 1 MiB (default: nothing)"`
	Timeout   int               `json:"timeout_seconds,omitempty" jsonschema:"seconds after which it is ended, with its whole process group: 1 to 21600 (default: 120)"`
	MaxOutput int               `json:"max_output_bytes,omitempty" jsonschema:"bytes of stdout, and of stderr, in the answer: 1 to 1048576 (default: 32768). Of more the beginning and the end are shown; vm_output gives the rest"`
}

type execOut struct {
	ExitStatus  int    `json:"exit_status" jsonschema:"0 to 255; 128+n: ended by signal n; 126: not executable; 127: not found; -1 after a timeout"`
	TimedOut    bool   `json:"timed_out" jsonschema:"it was ended because its time was over"`
	Error       string `json:"error,omitempty" jsonschema:"why it could not be started"`
	Stdout      string `json:"stdout" jsonschema:"control characters and bytes that are no UTF-8 text are shown as escapes such as \\x1b"`
	Stderr      string `json:"stderr" jsonschema:"as stdout"`
	StdoutBytes int64  `json:"stdout_bytes" jsonschema:"bytes that it wrote to stdout"`
	StderrBytes int64  `json:"stderr_bytes" jsonschema:"bytes that it wrote to stderr"`
	Truncated   bool   `json:"truncated" jsonschema:"not all output is in this answer"`
	OutputID    string `json:"output_id,omitempty" jsonschema:"names the whole output for vm_output, when truncated"`
	ElapsedMS   int64  `json:"elapsed_ms" jsonschema:"milliseconds that it took"`
	beside
}

func (s *Server) execTools() {
	add(s, about{name: "vm_exec", title: "Run a command in a VM", destroys: true, open: true, host: "nothing",
		text: `Run a command in a running VM and wait for its end and all of its output. A command that goes on in the background must not keep its output
open: ["sh", "-c", "server >/tmp/log 2>&1 &"]. Cancelling the call, or the end of its time, ends the command with its process group.`}, exec)
	add(s, about{name: "vm_output", title: "Read the whole output of a command", reads: true, repeatable: true, host: "nothing",
		text: `Read on in the output of a vm_exec whose answer was truncated. The last 16 such outputs are kept while the server runs, up to 64 MiB of each.`}, output)
}

func exec(ctx context.Context, c *call, in execIn) (out execOut, err error) {
	if len(in.Argv) == 0 || in.Argv[0] == "" {
		return out, banger.Invalidf("argv: no command given")
	}
	timeout, limit := in.Timeout, in.MaxOutput
	if timeout == 0 {
		timeout = defaultTimeout
	}
	if limit == 0 {
		limit = defaultOutput
	}
	switch {
	case timeout < 0 || timeout > maxTimeout:
		return out, banger.Invalidf("timeout_seconds %d: want 1 to %d", timeout, maxTimeout)
	case limit < 0 || limit > maxOutput:
		return out, banger.Invalidf("max_output_bytes %d: want 1 to %d", limit, maxOutput)
	case len(in.Stdin) > maxStdin:
		return out, &banger.Error{Kind: banger.ErrInvalid, Op: "stdin", Err: errors.New("it has more than 1 MiB"), Hint: "vm_write_file, and let the command read that file"}
	}
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return out, err
	}
	stdout, stderr, err := newCaptures()
	if err != nil {
		return out, err
	}
	timed, cancel := context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
	defer cancel()
	start := time.Now()
	status, err := c.Exec(timed, string(vm.ID), Command{Argv: in.Argv, Env: in.Env, Dir: in.Cwd, User: in.User, Stdin: strings.NewReader(in.Stdin), Stdout: stdout, Stderr: stderr})
	out.ElapsedMS = time.Since(start).Milliseconds()
	switch {
	case err != nil && status != 0:
		out.Error = err.Error()
	case err != nil && ctx.Err() == nil && timed.Err() != nil:
		status, out.TimedOut = -1, true
	case err != nil:
		stdout.close()
		stderr.close()
		return out, err
	}
	out.ExitStatus = status
	out.StdoutBytes, out.StderrBytes = stdout.size(), stderr.size()
	out.Truncated = out.StdoutBytes > int64(limit) || out.StderrBytes > int64(limit)
	if out.Truncated {
		out.OutputID = c.outputs.keep(stdout, stderr)
	} else {
		defer stdout.close()
		defer stderr.close()
	}
	if out.Stdout, err = stdout.show(limit, out.OutputID, "stdout"); err == nil {
		out.Stderr, err = stderr.show(limit, out.OutputID, "stderr")
	}
	out.beside = c.told()
	return out, err
}

type outputIn struct {
	OutputID string `json:"output_id" jsonschema:"as vm_exec gave it"`
	Stream   string `json:"stream,omitempty" jsonschema:"stdout or stderr (default: stdout)"`
	Offset   int64  `json:"offset,omitempty" jsonschema:"byte to begin at (default: 0)"`
	Limit    int    `json:"limit,omitempty" jsonschema:"bytes at most: 1 to 1048576 (default: 32768)"`
}

type outputOut struct {
	Text       string `json:"text" jsonschema:"as in vm_exec"`
	NextOffset int64  `json:"next_offset" jsonschema:"where to read on"`
	Size       int64  `json:"size" jsonschema:"bytes that are kept"`
	End        bool   `json:"end" jsonschema:"there is nothing after this"`
}

func output(_ context.Context, c *call, in outputIn) (out outputOut, err error) {
	if in.Limit == 0 {
		in.Limit = defaultOutput
	}
	if in.Limit < 0 || in.Limit > maxOutput || in.Offset < 0 {
		return out, banger.Invalidf("want an offset from 0 on, and a limit of 1 to %d", maxOutput)
	}
	var stream int
	switch in.Stream {
	case "", "stdout":
	case "stderr":
		stream = 1
	default:
		return out, banger.Invalidf("stream %q: want stdout or stderr", in.Stream)
	}
	captures, ok := c.outputs.find(in.OutputID)
	if !ok {
		return out, &banger.Error{Kind: banger.ErrNotFound, Op: "output", Subject: in.OutputID, Err: errors.New("it is not kept, or not any more"), Hint: "let the command write to a file in the VM, and read it by vm_read_file"}
	}
	text, err := captures[stream].read(in.Offset, in.Limit)
	if err != nil {
		return out, err
	}
	out.Size = captures[stream].kept()
	out.NextOffset = in.Offset + int64(len(text))
	out.Text, out.End = string(text), out.NextOffset >= out.Size
	return out, nil
}
