package hostcheck

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// What is enough for hundreds of VMs, and for work trees of thousands of directories.
const (
	memoryAdvice    = 1 << 30
	openFilesAdvice = 4096
	processesAdvice = 512
	watchesAdvice   = 8192
	instancesAdvice = 64
)

// Limits are those of this user's processes (getrlimit(2)), the hard ones.
type Limits struct {
	OpenFiles, Processes              uint64
	LockedMemory, FileSize, Addresses uint64 // bytes
}

func limits() (l Limits, err error) {
	for resource, to := range map[int]*uint64{unix.RLIMIT_NOFILE: &l.OpenFiles, unix.RLIMIT_NPROC: &l.Processes, unix.RLIMIT_MEMLOCK: &l.LockedMemory,
		unix.RLIMIT_FSIZE: &l.FileSize, unix.RLIMIT_AS: &l.Addresses} {
		var limit unix.Rlimit
		if err := unix.Getrlimit(resource, &limit); err != nil {
			return l, fmt.Errorf("ask for a limit: %w", err)
		}
		*to = limit.Max
	}
	return l, nil
}

// synchronized tells whether something keeps the clock right (adjtimex(2)).
func synchronized() bool {
	var t unix.Timex
	_, err := unix.Adjtimex(&t)
	return err == nil && t.Status&unix.STA_UNSYNC == 0
}

var fileSystems = map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.XFS_SUPER_MAGIC: "xfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.F2FS_SUPER_MAGIC: "f2fs", 0x2fc12fc1: "zfs", 0xca451a4e: "bcachefs"}

// fileSystem names the file system of a directory and tries whether two files in it can share blocks. Nothing of that is left.
func fileSystem(dir string) (name string, shares bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", false, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	name = fileSystems[int64(st.Type)]
	if name == "" {
		name = fmt.Sprintf("type %#x", st.Type)
	}
	var files [2]*os.File
	for i := range files {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return name, false, nil
		}
		files[i] = os.NewFile(uintptr(fd), dir)
		defer files[i].Close()
	}
	_, err = files[0].Write(make([]byte, 1<<16))
	return name, err == nil && unix.IoctlFileClone(int(files[1].Fd()), int(files[0].Fd())) == nil, nil
}

// System tells what this computer runs, and whether it has memory to spare.
func System(h Host) Check {
	name := "Linux"
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if data, err := h.ReadFile(path); err == nil {
			name = or(strings.Trim(value(string(data), "PRETTY_NAME="), `"'`), name)
			break
		}
	}
	kernel, _ := h.ReadFile("/proc/sys/kernel/osrelease")
	data, err := h.ReadFile("/proc/meminfo")
	if err != nil {
		return failed("host", err)
	}
	total, free := kibibytes(value(string(data), "MemTotal:")), kibibytes(value(string(data), "MemAvailable:"))
	c := Check{Name: "host", Status: Pass, Details: fmt.Sprintf("%s, kernel %s, %s memory, %s of it free", name, strings.TrimSpace(string(kernel)), banger.FormatSize(total), banger.FormatSize(free))}
	if free < memoryAdvice {
		c.Status, c.Hint = Warn, "end programs, or give VMs less: banger vm set --memory"
	}
	return c
}

// value is what follows a prefix in the first line that has it.
func value(text, prefix string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// kibibytes reads "123 kB" of /proc/meminfo. What can't be read is 0.
func kibibytes(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>10 {
		return 0
	}
	return n << 10
}

func or(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}

// Processor tells what there is; whether it runs guests is said by KVM.
func Processor(h Host) Check {
	data, err := h.ReadFile("/proc/cpuinfo")
	if err != nil {
		return failed("cpu", err)
	}
	field := func(name string) string {
		_, value, _ := strings.Cut(value(string(data), name), ":")
		return strings.TrimSpace(value)
	}
	count := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "processor") {
			count++
		}
	}
	virtualization := "no hardware virtualization"
	for _, flag := range strings.Fields(field("flags")) {
		if flag == "vmx" || flag == "svm" {
			virtualization = "hardware virtualization (" + flag + ")"
		}
	}
	return Check{Name: "cpu", Status: Pass, Details: fmt.Sprintf("%d × %s, %s", count, or(field("model name"), "unknown"), virtualization)}
}

// Programs looks for those of others that some commands use.
func Programs(h Host) Check {
	const name = "programs"
	var found []string
	for _, need := range []struct{ program, use string }{{"git", "for repositories"}, {"ssh", "for vm ssh"}} {
		path, err := h.LookPath(need.program)
		if err != nil {
			c := failed(name, err)
			c.Status, c.Details = Warn, c.Details+" ("+need.use+")"
			return c
		}
		found = append(found, path)
	}
	return Check{Name: name, Status: Pass, Details: strings.Join(found, ", ")}
}

// Files tells what kind of file system a directory is on. The state directory's own check says whether that will do.
func Files(h Host, dir string) Check {
	const name = "file system"
	kind, shares, err := h.FileSystem(dir)
	if err != nil {
		return failed(name, err)
	}
	if shares {
		return Check{Name: name, Status: Pass, Details: kind + ", on which copies can share their blocks (reflink)"}
	}
	return Check{Name: name, Status: Pass, Details: kind + ", on which every copy takes its place; files of VMs are sparse and take what is written"}
}

// UserLimits checks what processes of this user may have.
func UserLimits(h Host) Check {
	const name = "limits"
	l, err := h.Limits()
	if err != nil {
		return failed(name, err)
	}
	c := Check{Name: name, Status: Pass, Details: fmt.Sprintf("open files %s, processes %s, locked memory %s", amount(l.OpenFiles, false), amount(l.Processes, false), amount(l.LockedMemory, true))}
	raise := func(format string, args ...any) {
		c.Status, c.Hint = Warn, fmt.Sprintf("raise %s in /etc/security/limits.conf for %s, then sign in again", fmt.Sprintf(format, args...), h.User)
	}
	switch {
	case l.OpenFiles < openFilesAdvice:
		raise("nofile to %d", openFilesAdvice)
	case l.Processes < processesAdvice && h.UID != 0:
		raise("nproc to %d", processesAdvice)
	case l.FileSize != unix.RLIM_INFINITY:
		c.Details += ", size of a file " + amount(l.FileSize, true)
		raise("fsize: disks of VMs are files")
	case l.Addresses != unix.RLIM_INFINITY:
		c.Details += ", addresses " + amount(l.Addresses, true)
		raise("as: a VM has its memory and more")
	}
	return c
}

func amount(n uint64, bytes bool) string {
	switch {
	case n == unix.RLIM_INFINITY:
		return "unlimited"
	case bytes && n <= math.MaxInt64:
		return banger.FormatSize(int64(n))
	}
	return strconv.FormatUint(n, 10)
}

// Inotify checks how much "workspace watch" can watch.
func Inotify(h Host) Check {
	const name, dir = "inotify", "/proc/sys/fs/inotify"
	read := func(file string) (n int, err error) {
		data, err := h.ReadFile(filepath.Join(dir, file))
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(data)))
		}
		return n, err
	}
	watches, err := read("max_user_watches")
	if err != nil {
		return failed(name, err)
	}
	instances, err := read("max_user_instances")
	if err != nil {
		return failed(name, err)
	}
	c := Check{Name: name, Status: Pass, Details: fmt.Sprintf("%d directories can be watched, by %d programs", watches, instances)}
	switch {
	case watches < watchesAdvice:
		c.Status, c.Hint = Warn, "raise it on the host: sysctl -w fs.inotify.max_user_watches=1048576"
	case instances < instancesAdvice:
		c.Status, c.Hint = Warn, "raise it on the host: sysctl -w fs.inotify.max_user_instances=1024"
	}
	return c
}

// Linger checks whether VMs go on when their user signs out: the user's service manager, in whose scopes they run, ends then.
func Linger(h Host) Check {
	const name = "linger"
	switch {
	case !h.Exists(fmt.Sprintf("/run/user/%d/systemd", h.UID)):
		return Check{Name: name, Status: Pass, Details: "no service manager of this user runs that would end VMs when you sign out"}
	case h.Exists("/var/lib/systemd/linger/" + h.User):
		return Check{Name: name, Status: Pass, Details: "VMs go on when you sign out"}
	}
	return Check{Name: name, Status: Warn, Details: "VMs end when you have signed out everywhere", Hint: "loginctl enable-linger"}
}

// Clock checks the time: certificates and package archives are good for a while only.
func Clock(h Host) Check {
	const name = "clock"
	now := h.Now().UTC()
	c := Check{Name: name, Status: Pass, Details: now.Format(time.RFC3339) + ", kept right by this computer"}
	switch {
	case now.Before(h.Built):
		c.Status, c.Hint = Fail, "set it: sudo timedatectl set-ntp true"
		c.Details = fmt.Sprintf("%s is before banger was built (%s): certificates look as if they were not valid yet", now.Format(time.RFC3339), h.Built.UTC().Format(time.RFC3339))
	case !h.Synchronized():
		c.Status, c.Details, c.Hint = Warn, now.Format(time.RFC3339)+", and nothing keeps it right", "sudo timedatectl set-ntp true"
	}
	return c
}
