package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite"

	"banger"
	"banger/internal/disk"
	"banger/internal/hostcheck"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/store"
)

// host is one that has everything.
func host() hostcheck.Host {
	return hostcheck.Host{Architecture: "amd64", User: "me", UID: 1000,
		LookPath: func(program string) (string, error) { return "/usr/bin/" + program, nil },
		ReadFile: func(path string) ([]byte, error) {
			switch {
			case strings.HasPrefix(path, "/proc/sys/fs/inotify/"):
				return []byte("65536\n"), nil
			case path == "/proc/meminfo":
				return []byte("MemTotal: 16384000 kB\nMemAvailable: 8192000 kB\n"), nil
			}
			return []byte("me:100000:65536\n"), nil
		},
		Exists:     func(string) bool { return true },
		FileSystem: func(string) (string, bool, error) { return "ext4", false, nil },
		Limits: func() (hostcheck.Limits, error) {
			return hostcheck.Limits{OpenFiles: 1 << 20, Processes: 1 << 20, FileSize: unix.RLIM_INFINITY, Addresses: unix.RLIM_INFINITY}, nil
		},
		Now:          time.Now,
		Synchronized: func() bool { return true },
		FreeBytes:    func(string) (int64, error) { return 1 << 40, nil },
		LandlockABI:  func() int { return 7 },
		Version:      func(context.Context, string) (string, error) { return "QEMU emulator version 8.2.0", nil },
		KVM:          func(context.Context) (bool, string, string, error) { return true, "it works", "", nil }}
}

// newDir is a state directory with VMs whose disks are there.
func newDir(t *testing.T, names ...string) statedir.Dir {
	t.Helper()
	dir := statedir.Dir{Root: t.TempDir() + "/s"}
	if err := dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), dir.Database())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i, name := range names {
		vm := banger.VM{ID: id(i), Spec: banger.VMSpec{Name: name}, State: banger.StateStopped, CreatedAt: time.Unix(int64(i), 0)}
		home := dir.VM(vm.ID)
		err := errors.Join(db.Reserve(t.Context(), vm, nil), os.Mkdir(home.Path, 0o700))
		if err == nil {
			err = disk.Create(t.Context(), home, disk.Options{SizeBytes: 64 << 20, Time: time.Unix(1, 0)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func id(n int) banger.VMID { return banger.VMID(fmt.Sprintf("%012x", n)) }

func (d *planted) exec(query string) {
	d.t.Helper()
	db, err := sql.Open("sqlite", d.dir.Database())
	if err == nil {
		_, err = db.Exec(query)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// planted is a state directory in which something is to be wrong.
type planted struct {
	t   *testing.T
	dir statedir.Dir
}

func (d *planted) file(path, text string) {
	d.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *planted) mkdir(path string) {
	d.t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		d.t.Fatal(err)
	}
}

func TestExamine(t *testing.T) {
	for _, tc := range []struct {
		what   string
		plant  func(d *planted)
		status hostcheck.Status
		name   string // of the row
		text   string // in its details
		hint   string
	}{
		{"all is well", func(*planted) {}, hostcheck.Pass, "", "", ""},
		{"a record that can't be read", func(d *planted) { d.exec("UPDATE vms SET record = '{' WHERE name = 'b'") }, hostcheck.Warn, "vm b", "can't be read", "banger vm"},
		{"no disk", func(d *planted) { os.Remove(d.dir.VM(id(1)).Disk()) }, hostcheck.Fail, "vm b", "disk.ext4", "banger vm delete --force b"},
		{"a short disk", func(d *planted) { os.Truncate(d.dir.VM(id(1)).Disk(), 4096) }, hostcheck.Fail, "vm b", "4096 bytes", "banger vm delete --force b"},
		{"the directory of an erased VM", func(d *planted) {
			d.mkdir(d.dir.VM(id(9)).Path)
			d.exec("INSERT INTO erased (id) VALUES ('" + string(id(9)) + "')")
		}, hostcheck.Warn, "leftovers", string(id(9)), "--fix"},
		{"the directory of an unknown VM", func(d *planted) { d.mkdir(d.dir.VM(id(9)).Path) }, hostcheck.Warn, "leftovers", "nothing of them is removed", "docs/recovery.md"},
		{"somebody's file", func(d *planted) { d.file(d.dir.VMs()+"/note", "") }, hostcheck.Warn, "leftovers", "note", "yourself"},
		{"a damaged record of processes", func(d *planted) { d.file(d.dir.VM(id(1)).Handles(), "{") }, hostcheck.Warn, "vm b", "handles.json", "banger doctor --fix"},
		{"a damaged image", func(d *planted) {
			key := strings.Repeat("a", 64)
			d.mkdir(d.dir.Image(key).Path)
			d.file(d.dir.Image(key).Manifest(), "{")
		}, hostcheck.Fail, "image", "aaaa", "rm -r"},
		{"a damaged kernel", func(d *planted) {
			d.mkdir(d.dir.Kernel("mine").Path)
			d.file(d.dir.Kernel("mine").Manifest(), "{")
		}, hostcheck.Fail, "kernel", "mine", "banger kernel delete mine"},
		{"an unfinished image", func(d *planted) { d.mkdir(d.dir.ImageStaging("x").Path) }, hostcheck.Warn, "images", "not finished", "--fix"},
		{"no database", func(d *planted) { d.file(d.dir.Database(), strings.Repeat("no database\n", 999)) }, hostcheck.Fail, "database", "not a database", "move it away"},
		{"open to others", func(d *planted) { os.Chmod(d.dir.Root, 0o755) }, hostcheck.Fail, "state directory", "others can enter", "BANGER_STATE_DIR"},
	} {
		d := &planted{t, newDir(t, "a", "b")}
		tc.plant(d)
		report := Examine(t.Context(), Config{Dir: d.dir, Host: host()})
		if got := report.Status(); got != tc.status && !(tc.status == hostcheck.Pass && got == hostcheck.Warn) { // a test's directory may be in memory
			t.Errorf("%s: %s, want %s: %+v", tc.what, got, tc.status, report)
		}
		found := tc.name == ""
		for _, c := range report {
			if name, _, _ := strings.Cut(c.Name, " "); !slices.Contains(hostcheck.Rows, c.Name) && !(name == "vm" && strings.Count(c.Name, " ") == 1) {
				t.Errorf("%s: the row %q is not among hostcheck.Rows", tc.what, c.Name)
			}
			found = found || c.Name == tc.name && c.Status == tc.status && strings.Contains(c.Details, tc.text) && strings.Contains(c.Hint, tc.hint)
		}
		if !found {
			t.Errorf("%s: no row %q with %q and hint %q in %+v", tc.what, tc.name, tc.text, tc.hint, report)
		}
	}
}

// A process of a VM that does not run is found and, when that is asked for, ended. Others are left alone.
func TestOrphans(t *testing.T) {
	dir := newDir(t, "a")
	start := func(program, path string) proc.Handle {
		cmd := exec.Command("sh", "-c", "sleep 600; :", path)
		cmd.Args[0] = program
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		handle, err := proc.HandleOf(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return handle
	}
	orphan := start("/opt/banger-machine", dir.VM(id(7)).MachineConfig())
	stale := start("qemu-system-x86_64", dir.VM(id(0)).Disk())
	foreign := start("/opt/banger-machine", "/elsewhere/vms/"+string(id(7)))
	editor := start("vi", dir.VM(id(7)).MachineConfig())
	for _, fix := range []bool{false, true} {
		report := Examine(t.Context(), Config{Dir: dir, Host: host(), Fix: fix})
		for handle, ours := range map[proc.Handle]bool{orphan: true, stale: true, foreign: false, editor: false} {
			told := false
			for _, c := range report {
				told = told || strings.Contains(c.Details, fmt.Sprintf("process %d ", handle.PID))
			}
			if told != ours || handle.Alive() == (ours && fix) {
				t.Errorf("fix %v: process %d: told of %v, alive %v, want ours %v", fix, handle.PID, told, handle.Alive(), ours)
			}
		}
		if fails := report.Status() == hostcheck.Fail; fails == fix {
			t.Errorf("fix %v: %+v", fix, report)
		}
	}
}

// A record of processes that can't be read is made anew from those that live.
func TestDamagedHandles(t *testing.T) {
	dir := newDir(t, "a", "b")
	d := &planted{t, dir}
	cmd := exec.Command("sh", "-c", "sleep 600; :", "file="+dir.VM(id(0)).Disk())
	cmd.Args[0] = "qemu-system-x86_64"
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	d.exec("UPDATE vms SET record = json_set(record, '$.state', 'running') WHERE name = 'a'")
	for i := range 2 {
		d.file(dir.VM(id(i)).Handles(), "{")
	}
	report := Examine(t.Context(), Config{Dir: dir, Host: host(), Fix: true})
	if got, err := machine.ReadHandles(dir.VM(id(0))); err != nil || got.VMM.PID != cmd.Process.Pid || !got.VMM.Alive() {
		t.Errorf("made anew: %+v, %v, want VMM %d", got, err, cmd.Process.Pid)
	}
	if got, err := machine.ReadHandles(dir.VM(id(1))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a VM without processes: %+v, %v", got, err)
	}
	mended := 0
	for _, c := range report {
		if c.Status == hostcheck.Pass && strings.Contains(c.Details, "made anew") {
			mended++
		}
	}
	if mended != 2 {
		t.Errorf("told of %d: %+v", mended, report)
	}
}

// docs/doctor.md has a row for each check and for nothing else.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	_, checks, _ := strings.Cut(string(text), "\n## ")
	for line := range strings.Lines(checks) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "-") || strings.TrimSpace(cells[1]) == "check" {
			continue
		}
		for _, cell := range cells[2:4] {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("an empty cell in %q", line)
			}
		}
		documented = append(documented, strings.Split(strings.TrimSpace(cells[1]), ", ")...)
	}
	if !slices.Equal(documented, hostcheck.Rows) {
		t.Errorf("docs/doctor.md has rows for\n%q, want\n%q", documented, hostcheck.Rows)
	}
}
