package guestagent

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testenv"
)

// networkdUnit is all that the container runs. It ends the container.
const networkdUnit = `[Unit]
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

// networkdScript sets a card up as the agent does, and then starts a networkd that is told by its image to ask by DHCP.
const networkdScript = `ip link add card0 type veth peer name other0
ip link set other0 up
ip link set card0 up
ip addr add 198.19.0.2/24 dev card0
ip addr add fd62:616e:6765:7200::2/64 dev card0 nodad
ip route add default via 198.19.0.1 dev card0 proto static metric 2048
ip -6 route add default via fd62:616e:6765:7200::1 dev card0 proto static metric 2048
printf '[Match]\nName=card0\n[Network]\nDHCP=yes\n' >/etc/systemd/network/20-wired.network
mkdir -p /run/systemd/network
cp /test/` + networkdName + ` /run/systemd/network/
systemctl start systemd-networkd
timeout 60 /lib/systemd/systemd-networkd-wait-online && echo online
networkctl status card0 --no-pager | grep -o 'Network File: .*'
ip -br addr show card0 | tr -s ' ' | cut -d' ' -f3-4
ip route show default | cut -d' ' -f1-5
ip -6 route show default | cut -d' ' -f1-5
`

// A real systemd-networkd leaves the card as the agent has set it up, whatever the image wants, and counts as online. The container is this
// system's own tree below an overlay in memory; its card has another driver.
func TestNetworkdKeepsTheCard(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	testenv.RequireTool(t, "systemd-nspawn")
	if _, err := os.Stat("/lib/systemd/systemd-networkd"); err != nil {
		testenv.Skip(t, "systemd-networkd")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"probe.service": networkdUnit, "probe.sh": networkdScript,
		networkdName: strings.Replace(networkdFile, "virtio_net", "veth\nName=card0", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	// In a mount namespace of its own: whatever ends it, nothing stays mounted.
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation=private", "sh", "-ec", `
		mount -t tmpfs tmpfs /mnt
		mkdir /mnt/upper /mnt/work /mnt/root
		mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
		exec systemd-nspawn --quiet --directory=/mnt/root --boot --private-network --register=no --keep-unit --console=pipe --link-journal=no --resolv-conf=off \
			--bind="$0:/test" --bind-ro="$0/probe.service:/etc/systemd/system/probe.service" -- --unit=probe.service`, dir)
	log, err := cmd.CombinedOutput()
	out, _ := os.ReadFile(filepath.Join(dir, "out"))
	want := "online\nNetwork File: /run/systemd/network/" + networkdName + `
198.19.0.2/24 fd62:616e:6765:7200::2/64
default via 198.19.0.1 dev card0
default via fd62:616e:6765:7200::1 dev card0
`
	if string(out) != want {
		errs, _ := os.ReadFile(filepath.Join(dir, "err"))
		t.Errorf("the container (%v) says\n%s\nwant\n%s\nerrors:\n%s\n%s", err, out, want, errs, log)
	}
}
