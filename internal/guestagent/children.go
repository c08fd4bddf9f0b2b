package guestagent

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	agentOOMScore   = "-1000" // the agent is what lets a user into a guest that is out of memory
	commandOOMScore = "0"
)

// children starts processes and waits for them. Process 1 also inherits orphans: one goroutine then reaps everything and
// hands each status to who waits for it. Elsewhere each process is waited for by its own id.
type children struct {
	init bool
	oom  *os.File // our oom_score_adj; nil when this process may not change it

	mu      sync.Mutex // held while a process starts: its status is handed out only after it is known
	waiting map[int]chan unix.WaitStatus
	none    chan struct{} // closed when there is no process left, after [children.awaitNone]
}

// newChildren begins to reap when init is set; then nothing else in this process may wait for a child.
func newChildren(init bool) *children {
	c := &children{init: init, waiting: map[int]chan unix.WaitStatus{}}
	if oom, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0); err == nil {
		if _, err := oom.WriteString(agentOOMScore); err == nil {
			c.oom = oom
		} else {
			oom.Close()
		}
	}
	if init {
		sigchld := make(chan os.Signal, 1)
		signal.Notify(sigchld, unix.SIGCHLD)
		go func() {
			for range sigchld {
				c.reap()
			}
		}()
	}
	return c
}

// start starts a process. Its wait status arrives on the channel.
func (c *children) start(path string, argv []string, attr *syscall.ProcAttr) (pid int, status <-chan unix.WaitStatus, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.oom != nil {
		c.oom.WriteString(commandOOMScore)
		defer c.oom.WriteString(agentOOMScore)
	}
	// Not os.StartProcess: before its first process it starts one to see what the kernel can do.
	if pid, err = syscall.ForkExec(path, argv, attr); err != nil {
		return 0, nil, err
	}
	ch := make(chan unix.WaitStatus, 1)
	if c.init {
		c.waiting[pid] = ch
	} else {
		go func() { ch <- waitFor(pid) }()
	}
	return pid, ch, nil
}

func waitFor(pid int) (ws unix.WaitStatus) {
	for {
		if _, err := unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			return ws
		}
	}
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // ECHILD
			if c.none != nil {
				close(c.none)
				c.none = nil
			}
			return
		case pid == 0:
			return
		}
		if ch := c.waiting[pid]; ch != nil {
			ch <- ws
			delete(c.waiting, pid)
		}
	}
}

// awaitNone gives a channel that is closed when this process 1 has no child left, as its last orphan too is gone.
func (c *children) awaitNone() <-chan struct{} {
	c.mu.Lock()
	none := make(chan struct{})
	c.none = none
	c.mu.Unlock()
	c.reap()
	return none
}
