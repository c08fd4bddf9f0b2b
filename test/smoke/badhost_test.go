package smoke

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"banger"
	"banger/internal/statedir"
	"banger/internal/store"
	"banger/internal/testenv"
)

// Much of what is in the state directory is bad: the daemon starts, tells of each bad thing by name, and the rest works.
func TestBadStateDirectory(t *testing.T) {
	t.Parallel()
	w := testenv.NewBareWorld(t)
	dir := statedir.Dir{Root: w.State}
	w.Must("vm", "list")
	w.Must("daemon", "stop")
	plantBadThings(t, dir)
	giveToUser(t, w)

	begun := time.Now()
	states := map[string]banger.VMState{}
	for _, vm := range listVMs(w) {
		states[vm.Spec.Name] = vm.State
	}
	t.Logf("start and list with 20,000 stale files: %s", time.Since(begun))
	if want := (map[string]banger.VMState{"lost": banger.StateStopped, "unreadable": banger.StateError}); len(states) != 2 || states["lost"] != want["lost"] || states["unreadable"] != want["unreadable"] {
		t.Errorf("VMs are %v, want %v", states, want)
	}
	wantStatus(t, w.Run("vm", "start", "lost"), 1, "disk", "vm delete")
	wantStatus(t, w.Run("image", "list"), 0)
	wantStatus(t, w.Run("kernel", "list"), 0)
	if _, err := os.Stat(dir.VM("00000000aaaa").Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of an erased VM is there still (%v)", err)
	}
	if _, err := os.Stat(dir.VM("00000000bbbb").Path); err != nil {
		t.Errorf("the directory of a VM that the database does not know: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir.VMs(), "stale-0")); err != nil {
		t.Errorf("a file that is not banger's: %v", err)
	}
	r := w.Run("doctor")
	if r.Status != 1 {
		t.Errorf("doctor: status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	for _, text := range []string{"vm lost", "vm unreadable", "banger vm delete --force lost", strings.Repeat("a", 64), "kernel delete broken", "10000 things that are not banger's"} {
		if !strings.Contains(r.Stdout, text) {
			t.Errorf("doctor does not say %q:\n%s", text, r.Stdout)
		}
	}
	w.Must("vm", "delete", "--force", "lost", "unreadable")
	w.Must("kernel", "delete", "broken")
	if left := listVMs(w); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

func plantBadThings(t *testing.T, dir statedir.Dir) {
	t.Helper()
	db, err := store.Open(t.Context(), dir.Database())
	if err != nil {
		t.Fatal(err)
	}
	err = db.Delete(t.Context(), "00000000aaaa")
	for i, name := range []string{"lost", "unreadable"} {
		vm := banger.VM{ID: banger.VMID(fmt.Sprintf("%012d", i)), Spec: banger.VMSpec{Name: name}, State: banger.StateStopped, CreatedAt: time.Now()}
		err = errors.Join(err, db.Reserve(t.Context(), vm, nil))
	}
	err = errors.Join(err, db.Close())
	raw, openErr := sql.Open("sqlite", dir.Database())
	if err = errors.Join(err, openErr); err == nil {
		_, err = raw.Exec("UPDATE vms SET record = 'not JSON' WHERE name = 'unreadable'")
		err = errors.Join(err, raw.Close())
	}
	for i := range 10000 {
		for _, sub := range []string{dir.VMs(), dir.Run()} {
			err = errors.Join(err, os.WriteFile(filepath.Join(sub, fmt.Sprintf("stale-%d", i)), nil, 0o600))
		}
	}
	image, kernel := dir.Image(strings.Repeat("a", 64)), dir.Kernel("broken")
	for _, path := range []string{dir.VM("00000000aaaa").Path, dir.VM("00000000bbbb").Path, image.Path, kernel.Path} {
		err = errors.Join(err, os.Mkdir(path, 0o700))
	}
	err = errors.Join(err, os.WriteFile(image.Manifest(), []byte("{"), 0o600), os.WriteFile(kernel.Manifest(), []byte("{"), 0o600),
		os.WriteFile(dir.VM("00000000aaaa").Disk(), []byte("old"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// giveToUser gives the state directory to the world's user, whom a test that is root has made files for.
func giveToUser(t *testing.T, w *testenv.World) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", w.User.UID, w.User.GID), w.State).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
}

// A second daemon, a directory that may not be written and a database that is none: each is refused with the reason.
func TestDaemonRefuses(t *testing.T) {
	t.Parallel()
	w := testenv.NewBareWorld(t)
	w.Must("vm", "list")
	second := exec.Command(filepath.Join(w.Bin, "bangerd"), "--state-dir", w.State)
	second.Env = w.Command(t.Context()).Env
	w.User.As(second)
	wantStatus(t, testenv.Capture(t, second), 1, "another daemon", w.State)
	w.Must("vm", "list")
	w.Must("daemon", "stop")

	if err := os.Chmod(filepath.Join(w.State, "run"), 0o500); err != nil {
		t.Fatal(err)
	}
	if r := w.Run("vm", "list"); r.Status == 0 || !strings.Contains(r.Stderr, w.State) {
		t.Errorf("a directory that may not be written: status %d\n%s", r.Status, r.Stderr)
	}
	if err := os.Chmod(filepath.Join(w.State, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	database := statedir.Dir{Root: w.State}.Database()
	good, err := os.ReadFile(database)
	if err == nil {
		err = os.WriteFile(database, []byte(strings.Repeat("no database\n", 999)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := w.Run("vm", "list")
	if r.Status == 0 || !strings.Contains(r.Stderr, "state.db") {
		t.Errorf("a database that is none: status %d\n%s", r.Status, r.Stderr)
	}
	wantStatus(t, w.Run("doctor"), 1)
	// Who moves it away keeps the disks: their directories are no leftovers.
	disk := statedir.Dir{Root: w.State}.VM("0123456789ab").Disk()
	userFile(t, w, disk, "what a guest wrote")
	if err := os.Remove(database); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, w.Run("vm", "list"), 1, "state.db", filepath.Dir(filepath.Dir(disk)))
	if text, err := os.ReadFile(disk); err != nil || string(text) != "what a guest wrote" {
		t.Errorf("the disk of a VM whose record is lost: %v, %q", err, text)
	}
	if err := errors.Join(os.RemoveAll(filepath.Dir(disk)), os.WriteFile(database, good, 0o600), os.Chown(database, int(w.User.UID), int(w.User.GID))); err != nil {
		t.Fatal(err)
	}
	w.Must("vm", "list")
}
