package testenv

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// containerUnit is all that a container runs. It ends the container.
const containerUnit = `[Unit]
Requires=basic.target dbus.service
After=basic.target dbus.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/bash -e /test/probe.sh
StandardOutput=file:/test/out
StandardError=file:/test/err
`

// Container is this system's own tree below an overlay in memory, booted by systemd without a network.
type Container struct {
	Script  string            // what bash runs in it
	Files   map[string]string // content of files that it has in /test
	Prepare string            // what a shell of the host runs before the boot: $0 is the directory that becomes /test, /mnt/root the tree
	Binds   map[string]string // programs of the host that it has in /test, by name there
}

// Run gives what the script wrote to its standard output, and all that may say why that is not as wanted. It skips what can't be run here.
func (c Container) Run(t *testing.T) (out, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		Skip(t, "root")
	}
	RequireTool(t, "systemd-nspawn")
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("probe.service", containerUnit)
	write("probe.sh", c.Script)
	for name, text := range c.Files {
		write(name, text)
	}
	args := []string{"--mount", "--propagation=private", "sh", "-ec", `
		mount -t tmpfs tmpfs /mnt
		mkdir /mnt/upper /mnt/work /mnt/root
		mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
		` + c.Prepare + `
		exec systemd-nspawn --quiet --directory=/mnt/root --boot --private-network --register=no --keep-unit --console=pipe --link-journal=no --resolv-conf=off \
			--bind="$0:/test" --bind-ro="$0/probe.service:/etc/systemd/system/probe.service" "$@" -- --unit=probe.service`, dir}
	for name, path := range c.Binds {
		write(name, "")
		args = append(args, "--bind-ro="+path+":/test/"+name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	log, err := exec.CommandContext(ctx, "unshare", args...).CombinedOutput() // in a mount namespace of its own: whatever ends it, nothing stays mounted
	text, _ := os.ReadFile(filepath.Join(dir, "out"))
	errs, _ := os.ReadFile(filepath.Join(dir, "err"))
	if err != nil {
		log = append(log, err.Error()...)
	}
	return string(text), string(errs) + string(log)
}
