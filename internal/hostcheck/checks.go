package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/proc"
)

// Programs that checks look for.
const (
	programQEMU       = "qemu-system-x86_64"
	programMmdebstrap = "mmdebstrap"
	programNewuidmap  = "newuidmap"
)

// What a host must have at least.
const (
	minQEMUMajor, minQEMUMinor = 7, 2 // -action panic=exit-failure, and what is tested

	subordinateIDs = 65536 // of a user, for the user namespace in which images are made

	spaceNeeded = 2 << 30 // an image, a kernel and a small VM while they are made
	spaceAdvice = 8 << 30
)

// Host is how checks ask. NewHost fills in what starts no process; Version and KVM come from who may start one.
type Host struct {
	Architecture string // as GOARCH
	User         string
	UID          int
	LookPath     func(program string) (string, error) // its error has the hint
	ReadFile     func(path string) ([]byte, error)    // of /etc, /proc
	FreeBytes    func(dir string) (int64, error)      // for this user, on the file system of dir
	LandlockABI  func() int                           // 0: none
	Exists       func(path string) bool
	FileSystem   func(dir string) (name string, shares bool, err error) // shares: files in it can have blocks in common
	Limits       func() (Limits, error)
	Now          func() time.Time
	Synchronized func() bool                                            // the clock
	Built        time.Time                                              // the program; the zero value: not known
	Version      func(ctx context.Context, path string) (string, error) // first line of a program's --version
	KVM          func(ctx context.Context) (works bool, reason, hint string, err error)
}

// NewHost is this host and this user.
func NewHost() (Host, error) {
	u, err := user.Current()
	if err != nil {
		return Host{}, fmt.Errorf("find this user: %w", err)
	}
	return Host{Architecture: runtime.GOARCH, User: u.Username, UID: os.Getuid(), LookPath: proc.LookPath, ReadFile: os.ReadFile,
		FreeBytes: freeBytes, LandlockABI: proc.LandlockABI, Exists: exists, FileSystem: fileSystem, Limits: limits, Now: time.Now, Synchronized: synchronized}, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// All makes every check. Dir is where images and VMs go.
func All(ctx context.Context, h Host, dir string) Report {
	return Report{System(h), Processor(h), Architecture(h), QEMU(ctx, h), KVM(ctx, h), Landlock(h), Mmdebstrap(h), SubordinateIDs(h), UserNamespaces(h), Programs(h),
		Space(h, dir), Files(h, dir), UserLimits(h), Inotify(h), Linger(h), Clock(h)}
}

// Architecture checks the processor's.
func Architecture(h Host) Check {
	c := Check{Name: "architecture", Status: Pass, Details: h.Architecture}
	if h.Architecture != "amd64" {
		c.Status, c.Details = Fail, "VMs do not run on "+h.Architecture+" yet: images, kernels and QEMU's machine are those of amd64, and nobody has tried others"
		c.Hint = `run VMs on an amd64 computer; "banger disk" works here`
	}
	return c
}

// QEMU checks that it is there and new enough.
func QEMU(ctx context.Context, h Host) Check {
	const name = "qemu"
	path, err := h.LookPath(programQEMU)
	if err != nil {
		return failed(name, err)
	}
	line, err := h.Version(ctx, path)
	if err != nil {
		return failed(name, err)
	}
	major, minor, err := parseQEMUVersion(line)
	switch {
	case err != nil:
		return Check{name, Warn, fmt.Sprintf("%s: %v", path, err), ""}
	case major < minQEMUMajor || major == minQEMUMajor && minor < minQEMUMinor:
		return Check{name, Fail, fmt.Sprintf("%s has version %d.%d, banger needs %d.%d", path, major, minor, minQEMUMajor, minQEMUMinor),
			"use a newer release of the distribution, or install a newer QEMU first in PATH"}
	}
	return Check{name, Pass, fmt.Sprintf("%s, version %d.%d", path, major, minor), ""}
}

var qemuVersion = regexp.MustCompile(`\bversion ([0-9]{1,4})\.([0-9]{1,4})\b`)

// parseQEMUVersion reads "QEMU emulator version 7.2.22 (Debian …)".
func parseQEMUVersion(line string) (major, minor int, err error) {
	m := qemuVersion.FindStringSubmatch(line)
	if m == nil {
		return 0, 0, fmt.Errorf("%w: no version in %q", banger.ErrCorrupt, line)
	}
	major, err1 := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	return major, minor, errors.Join(err1, err2)
}

// KVM reports the verdict. Without it guests are emulated.
func KVM(ctx context.Context, h Host) Check {
	const name = "kvm"
	works, reason, hint, err := h.KVM(ctx)
	switch {
	case err != nil:
		return failed(name, err)
	case !works:
		return Check{name, Warn, reason + "; guests are emulated, which is slow", hint}
	}
	return Check{name, Pass, reason, ""}
}

// Landlock reports which part of the confinement of VMMs the kernel can do.
func Landlock(h Host) Check {
	const name, hint = "confinement", "a newer kernel, with landlock in its list of security modules (lsm=)"
	const common = "no_new_privs, QEMU's seccomp filter, no core dumps, descriptors closed"
	switch abi := h.LandlockABI(); {
	case abi == 0:
		return Check{name, Warn, common + "; no Landlock: files are not confined", hint}
	case abi < 4:
		return Check{name, Warn, fmt.Sprintf("%s; Landlock (ABI %d) for files, not for the network", common, abi), hint}
	case abi < 6:
		return Check{name, Pass, fmt.Sprintf("%s; Landlock (ABI %d) for files and network", common, abi), ""}
	default:
		return Check{name, Pass, fmt.Sprintf("%s; Landlock (ABI %d) for files, network, signals and abstract sockets", common, abi), ""}
	}
}

// Mmdebstrap checks what makes images from packages.
func Mmdebstrap(h Host) Check {
	const name = "mmdebstrap"
	path, err := h.LookPath(programMmdebstrap)
	if err != nil {
		return failed(name, err)
	}
	return Check{name, Pass, path, ""}
}

// SubordinateIDs checks the ids that files of an image get while it is made.
func SubordinateIDs(h Host) Check {
	const name = "subordinate ids"
	if h.UID == 0 {
		return Check{name, Pass, "not needed: banger runs as root", ""}
	}
	path, err := h.LookPath(programNewuidmap)
	if err != nil {
		return failed(name, err)
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		data, err := h.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failed(name, err)
		}
		if count := countIDs(string(data), h.User, h.UID); count < subordinateIDs {
			return Check{name, Fail, fmt.Sprintf("%s gives %s %d ids, images need %d", file, h.User, count, subordinateIDs),
				"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + h.User + " (another range when this one is taken)"}
		}
	}
	return Check{name, Pass, path + ", ranges in /etc/subuid and /etc/subgid", ""}
}

// countIDs is the largest range of a user (subuid(5): name or number, first id, count).
func countIDs(content, name string, uid int) int64 {
	var most int64
	for line := range strings.Lines(content) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 3 || fields[0] != name && fields[0] != strconv.Itoa(uid) {
			continue
		}
		_, err1 := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 == nil && err2 == nil {
			most = max(most, int64(count))
		}
	}
	return most
}

// namespaceSettings are where distributions forbid ordinary users a user namespace.
var namespaceSettings = []struct{ path, forbids, hint string }{
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=10000"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
}

// UserNamespaces checks that an ordinary user may make one, as images need it.
func UserNamespaces(h Host) Check {
	const name = "user namespaces"
	if h.UID == 0 {
		return Check{name, Pass, "not needed: banger runs as root", ""}
	}
	for _, s := range namespaceSettings {
		data, err := h.ReadFile(s.path)
		if err == nil && strings.TrimSpace(string(data)) == s.forbids {
			return Check{name, Fail, fmt.Sprintf("%s is %s", s.path, s.forbids), s.hint}
		}
	}
	return Check{name, Pass, "this user may make them", ""}
}

// Space checks the file system of a directory.
func Space(h Host, dir string) Check {
	const name = "disk space"
	hint := banger.SpaceHint(dir)
	free, err := h.FreeBytes(dir)
	if err != nil {
		return failed(name, err)
	}
	details := fmt.Sprintf("%s free in %s", banger.FormatSize(free), dir)
	switch {
	case free < spaceNeeded:
		return Check{name, Fail, fmt.Sprintf("%s, at least %s needed", details, banger.FormatSize(spaceNeeded)), hint}
	case free < spaceAdvice:
		return Check{name, Warn, details, hint}
	}
	return Check{name, Pass, details, ""}
}

// Room checks that this user has so many bytes in a directory. Errors: ErrUnavailable, in the words of [Space].
func Room(dir string, needed int64) error {
	free, err := freeBytes(dir)
	if err != nil {
		return fmt.Errorf("look at the free space: %w", err)
	}
	if free < needed {
		return Check{"disk space", Fail, fmt.Sprintf("%s free in %s, at least %s needed", banger.FormatSize(free), dir, banger.FormatSize(needed)), banger.SpaceHint(dir)}.Err()
	}
	return nil
}
