package hostcheck

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// good is a host on which every check passes.
func good() Host {
	files := map[string]string{
		"/etc/subuid": "root:100000:65536\nada:300000:65536\n",
		"/etc/subgid": "1000:300000:65536\n",
		"/proc/sys/kernel/unprivileged_userns_clone": "1\n",
		"/proc/sys/user/max_user_namespaces":         "12345\n",
		"/etc/os-release":                            "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"/proc/sys/kernel/osrelease":                 "6.1.0-42-amd64\n",
		"/proc/meminfo":                              "MemTotal:       16384000 kB\nMemFree:          100000 kB\nMemAvailable:    8192000 kB\n",
		"/proc/cpuinfo":                              "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu vmx sse\n\nprocessor\t: 1\nmodel name\t: Some CPU\nflags\t\t: fpu vmx sse\n",
		"/proc/sys/fs/inotify/max_user_watches":      "65536\n",
		"/proc/sys/fs/inotify/max_user_instances":    "128\n",
	}
	return Host{
		Architecture: "amd64", User: "ada", UID: 1000,
		LookPath: func(program string) (string, error) { return "/usr/bin/" + program, nil },
		ReadFile: func(path string) ([]byte, error) {
			if content, ok := files[path]; ok {
				return []byte(content), nil
			}
			return nil, fs.ErrNotExist
		},
		FreeBytes:   func(string) (int64, error) { return 100 << 30, nil },
		LandlockABI: func() int { return 7 },
		Exists:      func(path string) bool { return path != "/" },
		FileSystem:  func(string) (string, bool, error) { return "btrfs", true, nil },
		Limits: func() (Limits, error) {
			return Limits{OpenFiles: 1 << 20, Processes: 31000, LockedMemory: 8 << 20, FileSize: unix.RLIM_INFINITY, Addresses: unix.RLIM_INFINITY}, nil
		},
		Now:          func() time.Time { return time.Unix(2000, 0) },
		Built:        time.Unix(1000, 0),
		Synchronized: func() bool { return true },
		Version: func(context.Context, string) (string, error) {
			return "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", nil
		},
		KVM: func(context.Context) (bool, string, string, error) { return true, "KVM runs guests", "", nil },
	}
}

func TestGoodHost(t *testing.T) {
	report := All(t.Context(), good(), "/state")
	for _, c := range report {
		if c.Status != Pass || c.Details == "" || c.Hint != "" {
			t.Errorf("%+v, want PASS with details and no hint", c)
		}
	}
	for i, c := range report {
		if c.Name != Rows[i] {
			t.Errorf("row %d is %s, want %s", i, c.Name, Rows[i])
		}
	}
	if len(report) != 16 || report.Status() != Pass || report.Err() != nil {
		t.Errorf("report of %d checks: %s, %v", len(report), report.Status(), report.Err())
	}
}

func TestBadHosts(t *testing.T) {
	missing := func(bad string) func(string) (string, error) {
		return func(program string) (string, error) {
			if program == bad {
				return "", &banger.Error{Kind: banger.ErrUnavailable, Op: "find program", Subject: program, Hint: "install it: x"}
			}
			return "/usr/bin/" + program, nil
		}
	}
	file := func(path, content string, err error) func(string) ([]byte, error) {
		return func(asked string) ([]byte, error) {
			if asked == path {
				return []byte(content), err
			}
			return good().ReadFile(asked)
		}
	}
	version := func(line string, err error) func(context.Context, string) (string, error) {
		return func(context.Context, string) (string, error) { return line, err }
	}
	space := func(n int64, err error) func(string) (int64, error) {
		return func(string) (int64, error) { return n, err }
	}
	limit := func(change func(*Limits)) func(*Host) {
		return func(h *Host) {
			l, _ := h.Limits()
			change(&l)
			h.Limits = func() (Limits, error) { return l, nil }
		}
	}
	tests := []struct {
		name, check string
		change      func(*Host)
		status      Status
		details     string
		hint        bool
	}{
		{"arm64", "architecture", func(h *Host) { h.Architecture = "arm64" }, Fail, "VMs do not run on arm64 yet", true},
		{"no qemu", "qemu", func(h *Host) { h.LookPath = missing(programQEMU) }, Fail, "find program", true},
		{"old qemu", "qemu", func(h *Host) { h.Version = version("QEMU emulator version 6.2.0", nil) }, Fail, "version 6.2, banger needs 7.2", true},
		{"new qemu", "qemu", func(h *Host) { h.Version = version("QEMU emulator version 10.0.2", nil) }, Pass, "version 10.0", false},
		{"strange qemu", "qemu", func(h *Host) { h.Version = version("hello", nil) }, Warn, "no version", false},
		{"qemu that does not run", "qemu", func(h *Host) { h.Version = version("", errors.New("bad library")) }, Fail, "bad library", false},
		{"no kvm", "kvm", func(h *Host) {
			h.KVM = func(context.Context) (bool, string, string, error) { return false, "no /dev/kvm", "enable it", nil }
		}, Warn, "no /dev/kvm; guests are emulated", true},
		{"no verdict", "kvm", func(h *Host) {
			h.KVM = func(context.Context) (bool, string, string, error) { return false, "", "", errors.New("gave up") }
		}, Fail, "gave up", false},
		{"no landlock", "confinement", func(h *Host) { h.LandlockABI = func() int { return 0 } }, Warn, "files are not confined", true},
		{"old landlock", "confinement", func(h *Host) { h.LandlockABI = func() int { return 3 } }, Warn, "not for the network", true},
		{"landlock 5", "confinement", func(h *Host) { h.LandlockABI = func() int { return 5 } }, Pass, "files and network", false},
		{"no mmdebstrap", "mmdebstrap", func(h *Host) { h.LookPath = missing(programMmdebstrap) }, Fail, "mmdebstrap", true},
		{"no newuidmap", "subordinate ids", func(h *Host) { h.LookPath = missing(programNewuidmap) }, Fail, "newuidmap", true},
		{"no subuid file", "subordinate ids", func(h *Host) { h.ReadFile = file("/etc/subuid", "", fs.ErrNotExist) }, Fail, "/etc/subuid gives ada 0 ids", true},
		{"another's range", "subordinate ids", func(h *Host) { h.ReadFile = file("/etc/subgid", "adam:1:65536\n", nil) }, Fail, "/etc/subgid gives ada 0 ids", true},
		{"short range", "subordinate ids", func(h *Host) { h.ReadFile = file("/etc/subuid", "ada:1:1000\n", nil) }, Fail, "1000 ids, images need 65536", true},
		{"unreadable ranges", "subordinate ids", func(h *Host) { h.ReadFile = file("/etc/subuid", "", fs.ErrPermission) }, Fail, "permission", false},
		{"root", "subordinate ids", func(h *Host) { h.UID, h.LookPath = 0, missing(programNewuidmap) }, Pass, "not needed", false},
		{"debian switch", "user namespaces", func(h *Host) { h.ReadFile = file(namespaceSettings[0].path, "0\n", nil) }, Fail, "unprivileged_userns_clone is 0", true},
		{"apparmor switch", "user namespaces", func(h *Host) { h.ReadFile = file(namespaceSettings[2].path, "1\n", nil) }, Fail, "apparmor", true},
		{"full", "disk space", func(h *Host) { h.FreeBytes = space(1<<20, nil) }, Fail, "at least", true},
		{"nearly full", "disk space", func(h *Host) { h.FreeBytes = space(3<<30, nil) }, Warn, "free in /state", true},
		{"little memory", "host", func(h *Host) {
			h.ReadFile = file("/proc/meminfo", "MemTotal: 4096000 kB\nMemAvailable: 100000 kB\n", nil)
		}, Warn, "97.7 MiB of it free", true},
		{"no memory told", "host", func(h *Host) { h.ReadFile = file("/proc/meminfo", "", fs.ErrPermission) }, Fail, "permission", false},
		{"no os-release", "host", func(h *Host) { h.ReadFile = file("/etc/os-release", "", fs.ErrNotExist) }, Pass, "Linux, kernel 6.1.0-42-amd64, 15.6 GiB memory", false},
		{"no virtualization", "cpu", func(h *Host) { h.ReadFile = file("/proc/cpuinfo", "processor\t: 0\nflags\t: fpu\n", nil) }, Pass, "1 × unknown, no hardware virtualization", false},
		{"no git", "programs", func(h *Host) { h.LookPath = missing("git") }, Warn, "for repositories", true},
		{"ext4", "file system", func(h *Host) { h.FileSystem = func(string) (string, bool, error) { return "ext4", false, nil } }, Pass, "ext4, on which every copy", false},
		{"no file system", "file system", func(h *Host) { h.FileSystem = func(string) (string, bool, error) { return "", false, fs.ErrNotExist } }, Fail, "not exist", false},
		{"few files", "limits", limit(func(l *Limits) { l.OpenFiles = 1024 }), Warn, "open files 1024", true},
		{"few processes", "limits", limit(func(l *Limits) { l.Processes = 100 }), Warn, "processes 100", true},
		{"small files", "limits", limit(func(l *Limits) { l.FileSize = 1 << 30 }), Warn, "size of a file 1 GiB", true},
		{"few addresses", "limits", limit(func(l *Limits) { l.Addresses = 4 << 30 }), Warn, "addresses 4 GiB", true},
		{"no limits", "limits", limit(func(l *Limits) { l.OpenFiles, l.LockedMemory = unix.RLIM_INFINITY, unix.RLIM_INFINITY }), Pass, "open files unlimited", false},
		{"few watches", "inotify", func(h *Host) { h.ReadFile = file("/proc/sys/fs/inotify/max_user_watches", "100\n", nil) }, Warn, "100 directories", true},
		{"few watchers", "inotify", func(h *Host) { h.ReadFile = file("/proc/sys/fs/inotify/max_user_instances", "8\n", nil) }, Warn, "by 8 programs", true},
		{"no inotify", "inotify", func(h *Host) { h.ReadFile = file("/proc/sys/fs/inotify/max_user_instances", "x", nil) }, Fail, "invalid", false},
		{"no linger", "linger", func(h *Host) { h.Exists = func(path string) bool { return path == "/run/user/1000/systemd" } }, Warn, "end when you have signed out", true},
		{"no service manager", "linger", func(h *Host) { h.Exists = func(string) bool { return false } }, Pass, "no service manager", false},
		{"an old clock", "clock", func(h *Host) { h.Now = func() time.Time { return time.Unix(1, 0) } }, Fail, "before banger was built", true},
		{"a free clock", "clock", func(h *Host) { h.Synchronized = func() bool { return false } }, Warn, "nothing keeps it right", true},
		{"no directory", "disk space", func(h *Host) { h.FreeBytes = space(0, fs.ErrNotExist) }, Fail, "not exist", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := good()
			test.change(&h)
			report := All(t.Context(), h, "/state")
			for _, c := range report {
				if c.Name != test.check {
					if c.Status != Pass && test.name != "no newuidmap" {
						t.Errorf("%s: %+v, want only %s to differ", c.Name, c, test.check)
					}
					continue
				}
				if c.Status != test.status || !strings.Contains(c.Details, test.details) || (c.Hint != "") != test.hint {
					t.Errorf("%+v, want %s, %q, a hint: %v", c, test.status, test.details, test.hint)
				}
			}
			if report.Status() != test.status || (report.Err() != nil) != (test.status == Fail) {
				t.Errorf("report: %s, %v", report.Status(), report.Err())
			}
			if err := report.Err(); err != nil && (!errors.Is(err, banger.ErrUnavailable) || (banger.HintOf(err) != "") != test.hint) {
				t.Errorf("Err = %v with hint %q", err, banger.HintOf(err))
			}
		})
	}
}

func TestThisHost(t *testing.T) {
	h, err := NewHost()
	if err != nil {
		t.Fatal(err)
	}
	if free, err := h.FreeBytes(t.TempDir()); err != nil || free <= 0 {
		t.Errorf("FreeBytes = %d, %v", free, err)
	}
	for _, c := range []Check{Architecture(h), UserNamespaces(h), Landlock(h), Space(h, t.TempDir())} {
		if c.Details == "" {
			t.Errorf("%+v has no details", c)
		}
	}
}

func FuzzParseQEMUVersion(f *testing.F) {
	f.Add("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)")
	f.Add("version 1.2")
	f.Fuzz(func(t *testing.T, line string) {
		major, minor, err := parseQEMUVersion(line)
		if err == nil && (major < 0 || major > 9999 || minor < 0 || minor > 9999) {
			t.Errorf("parseQEMUVersion(%q) = %d.%d", line, major, minor)
		}
	})
}

func FuzzCountIDs(f *testing.F) {
	f.Add("ada:1:2\n")
	f.Fuzz(func(t *testing.T, content string) {
		if n := countIDs(content, "ada", 1000); n < 0 || n > 1<<32 {
			t.Errorf("countIDs(%q) = %d", content, n)
		}
		if n := countIDs(content+"\nada:1:4294967295\n", "ada", 1000); n != 1<<32-1 {
			t.Errorf("countIDs(%q and a full range) = %d", content, n)
		}
	})
}

// The probes that read and try answer on this host, too.
func TestThisMachine(t *testing.T) {
	h, err := NewHost()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, c := range []Check{System(h), Processor(h), Programs(h), Files(h, dir), UserLimits(h), Inotify(h), Linger(h), Clock(h)} {
		if c.Details == "" || c.Status == Fail {
			t.Errorf("%+v", c)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("trying the file system left %v (%v)", entries, err)
	}
	if c := System(h); strings.Contains(c.Details, "0 B memory") {
		t.Errorf("%+v", c)
	}
}

func TestRoom(t *testing.T) {
	dir := t.TempDir()
	if err := Room(dir, 1); err != nil {
		t.Errorf("Room for a byte: %v", err)
	}
	err := Room(dir, 1<<62)
	c := Space(Host{FreeBytes: func(string) (int64, error) { return 1, nil }}, dir)
	if !errors.Is(err, banger.ErrUnavailable) || banger.HintOf(err) != c.Hint || !strings.Contains(err.Error(), "disk space") || !strings.Contains(err.Error(), "free in "+dir+", at least") {
		t.Errorf("Room = %v with hint %q, the doctor says %+v", err, banger.HintOf(err), c)
	}
}
