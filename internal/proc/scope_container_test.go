package proc

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const (
	containerScope = "banger-0123456789ab.scope"
	startedPipe    = "/test/started"
)

// probeUnit is all that the container runs. It ends the container.
const probeUnit = `[Unit]
Requires=basic.target systemd-logind.service dbus.service
After=basic.target systemd-logind.service dbus.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/sh -e /test/probe.sh
StandardOutput=file:/test/out
StandardError=file:/test/err
`

// probeScript is a user with a service manager, one of whose programs starts a machine and ends. No scope is stopped: not every kernel
// that runs tests lets a manager in a container kill a control group.
const probeScript = `useradd --create-home tester
uid=$(id -u tester)
systemctl start user@$uid.service
as() { setpriv --reuid=$uid --regid=$uid --clear-groups env HOME=/home/tester XDG_RUNTIME_DIR=/run/user/$uid "$@"; }
mkfifo -m 0666 ` + startedPipe + `
as env CONTAINER_ROLE=starter systemd-run --user --scope --unit=login /test/program -test.run='^TestContainerRole$' >&2 &
read -r machine <` + startedPipe + `
grep -q '/` + containerScope + `$' /proc/$machine/cgroup && echo "in its scope"
as systemctl --user show --property=ActiveState --property=Description --property=CollectMode ` + containerScope + `
wait
kill -0 $machine && echo "lives on"
`

// With a real service manager of a user, a detached process has a scope of its own and does not end with what started it. The container is this system's own tree below an overlay in memory.
func TestScopeOfARealServiceManager(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skipf("needs root for a container")
	}
	for _, path := range []string{"/usr/bin/systemd-nspawn", "/usr/bin/unshare", "/usr/bin/setpriv", "/usr/sbin/useradd", "/lib/systemd/systemd", "/usr/lib/systemd/user/dbus.service"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("needs a container (on Debian: systemd-container, dbus-user-session): %v", err)
		}
	}
	if err := exec.Command("unshare", "--mount", "--propagation=private", "true").Run(); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { // the container's user works there
		t.Fatal(err)
	}
	for name, text := range map[string]string{"probe.service": probeUnit, "probe.sh": probeScript, "program": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// In a mount namespace of its own: whatever ends it, nothing stays mounted.
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation=private", "sh", "-ec", `
		mount -t tmpfs tmpfs /mnt
		mkdir /mnt/upper /mnt/work /mnt/root
		mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
		exec systemd-nspawn --quiet --directory=/mnt/root --boot --private-network --register=no --keep-unit --console=pipe --link-journal=no \
			--bind="$0:/test" --bind-ro="$1:/test/program" --bind-ro="$0/probe.service:/etc/systemd/system/probe.service" -- --unit=probe.service`, dir, self)
	log, err := cmd.CombinedOutput()
	out, _ := os.ReadFile(filepath.Join(dir, "out"))
	want := "in its scope\nDescription=banger machine\nActiveState=active\nCollectMode=inactive-or-failed\nlives on\n"
	if string(out) != want {
		errs, _ := os.ReadFile(filepath.Join(dir, "err"))
		t.Errorf("the container (%v) says\n%s\nwant\n%s\nerrors:\n%s\n%s", err, out, want, errs, log)
	}
}

// TestContainerRole is what TestScopeOfARealServiceManager runs in its container.
func TestContainerRole(t *testing.T) {
	switch os.Getenv("CONTAINER_ROLE") {
	case "starter":
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("CONTAINER_ROLE", "machine")
		if _, err := Detach(Spec{Path: self, Args: []string{"-test.run=^TestContainerRole$"}, Scope: containerScope}); err != nil {
			t.Fatal(err)
		}
		return
	case "machine":
		if err := os.WriteFile(startedPipe, []byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
			t.Fatal(err)
		}
	default:
		t.Skipf("needs TestScopeOfARealServiceManager to start it")
	}
	time.Sleep(time.Hour) // it is ended before
}
