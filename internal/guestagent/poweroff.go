package guestagent

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/channel"
)

const (
	signalGrace = 5 * time.Second // when the end is asked for inside the guest
	killWait    = 2 * time.Second // for processes to be gone after SIGKILL
)

// end powers off or reboots, once: as process 1 by itself, else through the image's init.
func (a *agent) end(reboot bool, grace time.Duration) {
	a.ending.Do(func() {
		a.send(&channel.FromGuest{Going: &channel.Going{Reboot: reboot}})
		if a.init {
			a.server.children.endAll(grace)
			shutdown(reboot)
			return
		}
		unix.Sync()
		if err := a.askInit(); err != nil {
			logf("power off: %v", err)
			freeze()
			unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		}
	})
}

// askInit has the image's own init power off in its order.
func (a *agent) askInit() error {
	var last error
	for _, argv := range [][]string{{"systemctl", "poweroff", "--no-wall"}, {"poweroff"}} {
		path, err := lookPath(argv[0], defaultPath, "/")
		if err == nil {
			var status <-chan unix.WaitStatus
			_, status, err = a.server.children.start(path, argv, systemAttr(os.Stdout, os.Stderr))
			if err == nil {
				if ws := <-status; ws.ExitStatus() != 0 {
					err = fmt.Errorf("%s: exit status %d", argv[0], ws.ExitStatus())
				}
			}
		}
		if err == nil {
			return nil
		}
		last = err
	}
	return last
}

// endAll ends every process but this one: SIGTERM, then after grace SIGKILL.
func (c *children) endAll(grace time.Duration) {
	none := c.awaitNone()
	unix.Kill(-1, unix.SIGTERM)
	unix.Kill(-1, unix.SIGCONT)
	if awaited(none, grace) {
		return
	}
	unix.Kill(-1, unix.SIGKILL)
	awaited(none, killWait)
}

func awaited(done <-chan struct{}, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func shutdown(reboot bool) {
	freeze()
	cmd := unix.LINUX_REBOOT_CMD_POWER_OFF
	if reboot {
		cmd = unix.LINUX_REBOOT_CMD_RESTART
	}
	unix.Reboot(cmd)
}

// freeze leaves clean file systems: the overlay on top first, then the disk under it. What refuses, since something still
// writes, is left to the kernel's own emergency.
func freeze() {
	unix.Sync()
	const readOnly = unix.MS_REMOUNT | unix.MS_RDONLY
	if err := unix.Mount("", "/", "", readOnly, ""); err != nil {
		logf("make the root read-only: %v", err)
	}
	if err := unix.Mount("", diskMount, "", readOnly, ""); err != nil {
		logf("make the disk read-only: %v", err)
		os.WriteFile("/proc/sysrq-trigger", []byte("u"), 0)
	}
	unix.Sync()
}
