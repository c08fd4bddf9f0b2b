package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
	"banger/api"
	"banger/internal/proc"
)

// Dial connects to the daemon and starts it first when none runs. It waits until the daemon serves.
// Errors: ErrUnavailable with the daemon's own words when it does not come up; ErrRefused when the state directory is not ours.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	cfg, err := cfg.Complete()
	if err == nil {
		err = cfg.dir().Ensure()
	}
	if err != nil {
		return nil, err
	}
	conn, err := connectOrStart(ctx, cfg)
	if err != nil {
		if cause := ctx.Err(); cause != nil {
			err = &banger.Error{Kind: banger.ErrInterrupted, Err: cause}
		}
		return nil, err
	}
	return newClient(cfg, conn, connectOrStart), nil
}

func connectOrStart(ctx context.Context, cfg Config) (net.Conn, error) {
	conn, err := connect(ctx, cfg)
	if isAbsent(err) {
		return start(ctx, cfg)
	}
	return conn, err
}

// isAbsent tells whether nobody listens.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// start runs the daemon unless another client does so first, and connects.
func start(ctx context.Context, cfg Config) (net.Conn, error) {
	unlock, err := lock(ctx, cfg.dir().Run())
	if err != nil {
		return nil, fmt.Errorf("wait for another start of the daemon: %w", err)
	}
	defer unlock()
	if conn, err := connect(ctx, cfg); !isAbsent(err) {
		return conn, err
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	_, err = proc.Detach(proc.Spec{Path: cfg.Daemon, Args: []string{"--state-dir", cfg.StateDir, "--ready-fd", "3"}, Dir: "/", ExtraFiles: []*os.File{theirs}})
	theirs.Close()
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "start the daemon", Subject: cfg.Daemon, Err: err, Hint: "bangerd belongs beside banger"}
	}
	if err := awaitReady(ctx, ready, cfg.dir().DaemonLog()); err != nil {
		return nil, err
	}
	return connect(ctx, cfg)
}

// awaitReady reads the daemon's one line: "ready", or an error as JSON.
func awaitReady(ctx context.Context, ready *os.File, log string) error {
	defer context.AfterFunc(ctx, func() { ready.Close() })()
	line, err := bufio.NewReader(io.LimitReader(ready, 1<<16)).ReadString('\n')
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if line = strings.TrimSpace(line); line == api.Ready {
		return nil
	}
	var wire banger.ErrorBody
	if json.Unmarshal([]byte(line), &wire) == nil && wire.Message != "" {
		return &banger.Error{Op: "start the daemon", Err: wire.Decode()}
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errors.New("it ended at its start")
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "start the daemon", Err: err, Hint: "see " + log}
}

// lock takes the lock of a directory until unlock; its holder's end frees it.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	fd := int(file.Fd())
	go func() { locked <- flock(fd) }()
	select {
	case err := <-locked:
		if err != nil {
			file.Close()
		}
		return func() { file.Close() }, err
	case <-ctx.Done():
		go func() { <-locked; file.Close() }() // flock(2) does not end by a close
		return nil, ctx.Err()
	}
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// Shutdown ends the daemon and returns when its process is gone. VMs go on. Errors: ErrConflict while operations run, unless
// force lets them be cut off: what they made so far is undone.
func (c *Client) Shutdown(ctx context.Context, force bool) error {
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	daemon, err := proc.HandleOf(status.PID)
	if err != nil {
		return fmt.Errorf("find the daemon's process: %w", err)
	}
	resp, err := c.do(ctx, api.RouteShutdown, "", param(api.ForceParam, force), nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if err := daemon.Wait(ctx); err != nil {
		return unavailable(ctx, err)
	}
	return nil
}
