package guestagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// Places in the initrd, before the root is switched.
const (
	modulesDir   = "/modules" // order, *.ko
	modulesOrder = "order"
	mountBase    = "/mnt/base"
	mountModules = "/mnt/modules"
	mountDisk    = "/mnt/disk"
	mountRoot    = "/mnt/root"
)

// Places in the guest. Only root enters runDir. systemd never unmounts what is below /run/initramfs, but makes it
// read-only in the end; the disk would stay dirty otherwise, since the root overlay that holds it is no mount of it.
const (
	initramfs   = "/run/initramfs"
	runDir      = initramfs + "/banger"
	runLink     = "/run/banger"    // to runDir
	diskMount   = runDir + "/disk" // the VM's own disk, without the overlay
	guestBinary = runDir + "/guest"
	modprobe    = runDir + "/modprobe" // the same program: what the kernel calls to load a module
)

const (
	bootArg    = "banger.boot="
	timingsEnv = "BANGER_TIMINGS" // from the first process to the agent beside the image's init
	// systemd spares processes whose name begins so when it ends all others.
	agentName = "@banger-guest"
)

// inits are where an image may have its own process 1.
var inits = []string{"/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/usr/sbin/init", "/bin/init", "/etc/init"}

// clock takes the time of each step, from the start of the kernel.
type clock struct {
	last  time.Duration
	steps []banger.Timing
}

func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func (c *clock) done(step string) {
	now := uptime()
	c.steps = append(c.steps, banger.Timing{Side: "guest", Step: step, Elapsed: now - c.last})
	c.last = now
}

// Main runs the program by the name and the arguments it was called with: the kernel's modprobe, the agent beside an
// image's init, a user's SFTP server, or the first process of the initrd. It returns only when it cannot go on, with an exit status.
func Main(args []string) int {
	if filepath.Base(args[0]) == filepath.Base(modprobe) {
		return modprobeMain(args[1:], os.Stderr)
	}
	if args[0] == sftpName {
		return sftpMain()
	}
	var err error
	switch {
	case args[0] == agentName:
		err = runBesideInit()
	case os.Getpid() == 1:
		err = runFirst()
	default:
		err = errors.New("this program runs inside a guest")
	}
	logf("%v", err)
	if os.Getpid() != 1 {
		return 1
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	return 1
}

// logf writes a line to the console.
func logf(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "banger-guest: "+format+"\n", a...)
}

// runFirst makes the guest's root and becomes the agent, or starts it and then the image's init.
func runFirst() error {
	var times clock
	unix.Umask(0)
	if err := mountKernel(); err != nil {
		return err
	}
	times.done("kernel")
	if err := loadBootModules(modulesDir); err != nil {
		return err
	}
	times.done("modules")
	drives, err := findDrives(banger.DriveBase, banger.DriveModules, banger.DriveDisk)
	if err != nil {
		return err
	}
	times.done("drives")
	if err := makeRoot(drives); err != nil {
		return err
	}
	times.done("mounts")
	unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	if err := raiseLoopback(); err != nil {
		logf("loopback: %v", err)
	}
	if bootKind() == banger.BootSystem {
		return startInit(times.steps)
	}
	unix.Umask(0o022)
	os.Setenv("PATH", defaultPath)
	return newAgent(&times, true).run()
}

func bootKind() banger.BootKind {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return banger.BootAgent
	}
	for _, arg := range strings.Fields(string(line)) {
		if kind, ok := strings.CutPrefix(arg, bootArg); ok {
			return banger.BootKind(kind)
		}
	}
	return banger.BootAgent
}

// startInit starts the agent as a child and gives process 1 to the image's init, which adopts it.
func startInit(steps []banger.Timing) error {
	var path string
	for _, candidate := range inits {
		if checkExecutable(candidate) == nil {
			path = candidate
			break
		}
	}
	if path == "" {
		return fmt.Errorf("the image has no init (looked for %s): use boot kind %q", strings.Join(inits, ", "), banger.BootAgent)
	}
	if err := ensureMachineID(machineIDFile); err != nil {
		logf("machine id: %v", err)
	}
	if err := maskStaticNodes("/run/systemd/system", "/bin/kmod", "/usr/bin/kmod"); err != nil {
		logf("%s: %v", staticNodes, err)
	}
	if err := keepNetwork("/run/systemd/network"); err != nil {
		logf("systemd-networkd: %v", err)
	}
	timings, err := json.Marshal(steps)
	if err != nil {
		return err
	}
	env := []string{"PATH=" + defaultPath}
	_, err = os.StartProcess(guestBinary, []string{agentName}, &os.ProcAttr{
		Dir: "/", Env: append(env, timingsEnv+"="+string(timings)), Files: []*os.File{nil, os.Stdout, os.Stderr},
		Sys: &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	unix.Umask(0o022)
	return fmt.Errorf("start %s: %w", path, unix.Exec(path, []string{path}, append(env, "HOME=/", "TERM=linux")))
}

func runBesideInit() error {
	times := clock{last: uptime()}
	if err := json.Unmarshal([]byte(os.Getenv(timingsEnv)), &times.steps); err != nil {
		logf("timings of the boot: %v", err)
	}
	os.Unsetenv(timingsEnv)
	unix.Umask(0o022)
	return newAgent(&times, false).run()
}

// findDrives gives the device of each serial. Loading the driver makes them; slow hosts get time.
func findDrives(serials ...string) (map[string]string, error) {
	const patience, pause = 20 * time.Second, 5 * time.Millisecond
	found := map[string]string{}
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		names, err := filepath.Glob("/sys/block/*/serial")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			serial, err := os.ReadFile(name)
			if err == nil {
				found[strings.TrimSpace(string(serial))] = "/dev/" + filepath.Base(filepath.Dir(name))
			}
		}
		missing := ""
		for _, serial := range serials {
			if found[serial] == "" {
				missing = serial
			}
		}
		if missing == "" {
			return found, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no drive with serial %q", missing)
		}
	}
}

// checkLayout refuses a disk whose layout this agent does not know.
func checkLayout(disk string) error {
	path := filepath.Join(disk, banger.DiskLayoutFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the disk has no file /%s: it is no disk of banger's", banger.DiskLayoutFile)
	}
	if err != nil {
		return err
	}
	if version := strings.TrimSpace(string(b)); version != fmt.Sprint(banger.DiskLayoutVersion) {
		return fmt.Errorf("the disk has layout %.20q, this guest agent knows %d", version, banger.DiskLayoutVersion)
	}
	return nil
}
