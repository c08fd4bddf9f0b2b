package guestagent

import (
	"os"
	"strings"
	"testing"

	"banger/internal/testenv"
)

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
	if _, err := os.Stat("/lib/systemd/systemd-networkd"); err != nil {
		testenv.Skip(t, "systemd-networkd")
	}
	out, why := testenv.Container{Script: networkdScript, Files: map[string]string{networkdName: strings.Replace(networkdFile, "virtio_net", "veth\nName=card0", 1)}}.Run(t)
	want := "online\nNetwork File: /run/systemd/network/" + networkdName + `
198.19.0.2/24 fd62:616e:6765:7200::2/64
default via 198.19.0.1 dev card0
default via fd62:616e:6765:7200::1 dev card0
`
	if out != want {
		t.Errorf("the container says\n%s\nwant\n%s\nerrors:\n%s", out, want, why)
	}
}
