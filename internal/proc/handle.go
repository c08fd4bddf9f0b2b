package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// Handle names a process for good: a process id alone may be reused.
type Handle struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks since boot, field 22 of /proc/PID/stat (proc(5))
	BootID    string `json:"boot_id"`    // /proc/sys/kernel/random/boot_id of the host
}

// errGone says that a handle's process has ended.
var errGone = &banger.Error{Kind: banger.ErrNotFound, Op: "find process", Err: os.ErrProcessDone}

// BootID is this boot of the host: it changes with every boot.
var BootID = sync.OnceValues(func() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
})

// Self is the handle of this process.
func Self() (Handle, error) { return HandleOf(os.Getpid()) }

// HandleOf is the handle of the process that has this id now. Errors: ErrNotFound.
func HandleOf(pid int) (Handle, error) {
	boot, err := BootID()
	if err != nil {
		return Handle{}, fmt.Errorf("read boot id: %w", err)
	}
	start, err := startTime(pid)
	if err != nil {
		return Handle{}, err
	}
	return Handle{PID: pid, StartTime: start, BootID: boot}, nil
}

func startTime(pid int) (uint64, error) {
	stat, err := readStat(pid)
	return stat.started, err
}

// open gives a pidfd of exactly this process: the start time is compared after the descriptor holds the process id.
// Errors: ErrNotFound when it has been reaped.
func (h Handle) open() (*os.File, error) {
	if boot, err := BootID(); err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	} else if boot != h.BootID || h.PID <= 0 {
		return nil, errGone
	}
	fd, err := unix.PidfdOpen(h.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) { // EINVAL: the id is a thread's by now
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", h.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	start, err := startTime(h.PID)
	if err == nil && start != h.StartTime {
		err = errGone
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Alive reports whether the process runs. A zombie does not.
func (h Handle) Alive() bool {
	f, err := h.open()
	if err != nil {
		return !errors.Is(err, banger.ErrNotFound)
	}
	defer f.Close()
	return !ended(f.Fd())
}

// ended polls a pidfd, which becomes readable when its process has no running thread left.
func ended(fd uintptr) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if !errors.Is(err, unix.EINTR) {
			return n == 1
		}
	}
}

// Signal sends sig to this process and never to another one that got its id. Errors: ErrNotFound when it is gone.
func (h Handle) Signal(sig syscall.Signal) error {
	f, err := h.open()
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.PidfdSendSignal(int(f.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return errGone
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", h.PID, err)
	}
	return nil
}

// Wait returns nil when the process is gone, or ErrInterrupted when ctx ends first. The process need not be a child.
func (h Handle) Wait(ctx context.Context) error {
	f, err := h.open()
	if errors.Is(err, banger.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = conn.Read(ended)
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return interrupted("wait for process", strconv.Itoa(h.PID), ctx)
	}
	return err
}

// Kill sends SIGKILL and returns when the process is gone; one that is gone already is no error. Errors: ErrInterrupted.
func (h Handle) Kill(ctx context.Context) error {
	if err := h.Signal(syscall.SIGKILL); err != nil {
		if errors.Is(err, banger.ErrNotFound) {
			return nil
		}
		return err
	}
	return h.Wait(ctx)
}

func interrupted(op, subject string, ctx context.Context) error {
	return &banger.Error{Kind: banger.ErrInterrupted, Op: op, Subject: subject, Err: context.Cause(ctx)}
}
