package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/bench/bare"
	"banger/internal/channel"
	"banger/internal/guest"
	"banger/internal/machine"
	"banger/internal/netstack"
	"banger/internal/statedir"
	"banger/internal/supervisor"
	"banger/internal/testenv"
	"banger/internal/vmm"
)

// bareGuest is a guest of QEMU's with three network cards and a second channel. Processes of their own serve them.
type bareGuest struct {
	b      *testing.B
	client *guest.Client
	raw    string // socket of the second channel
	pids   pids
}

// pids are the processes of a bare guest.
type pids struct{ QEMU, Stack, TapVsock int }

// bareInput is what the role that boots the guest is told.
type bareInput struct {
	Config   machine.Config
	TapVsock string // program
}

// card is a network card that banger's machines do not have.
type card struct {
	mac, address, gateway string
	server                string // reached by it
}

var (
	slirpCard    = card{"52:54:00:00:00:02", "10.0.2.15/24", "10.0.2.2", testenv.OtherAddr}
	tapVsockCard = card{"52:54:00:00:00:03", "192.168.127.2/24", "192.168.127.1", testenv.DNSAddr}
)

// startBare boots a guest as long as b runs.
func startBare(b *testing.B, w *testenv.World) *bareGuest {
	const name = "bare"
	w.Must("vm", "run", "--name", name, "--", "true")
	w.Must("vm", "cp", inside(b, w), name+":/usr/local/bin/inside")
	w.Must("vm", "cp", testenv.RequireTool(b, "busybox"), name+":/usr/local/bin/busybox")
	w.Must("vm", "stop", name)
	var vm struct {
		Dir string `json:"dir"`
	}
	w.JSON(&vm, "vm", "show", name)
	dir := statedir.VMDir{Path: vm.Dir}
	input := bareInput{TapVsock: tapVsock(b)}
	text, err := os.ReadFile(dir.MachineConfig())
	if err == nil {
		err = json.Unmarshal(text, &input.Config)
	}
	if err != nil {
		b.Fatal(err)
	}
	g := &bareGuest{b: b, raw: rawSocket(dir)}
	g.startRole(input)
	g.signIn(dir)
	for _, c := range []card{slirpCard, tapVsockCard} {
		g.exec("sh", "-c", fmt.Sprintf(`set -e; card=$(basename $(dirname $(grep -l %s /sys/class/net/*/address)))
busybox ip link set $card up; busybox ip addr add %s dev $card; busybox ip route add %s via %s dev $card`, c.mac, c.address, c.server, c.gateway))
	}
	go func() { _, _ = g.run("inside", "channel") }() // ends with the guest
	return g
}

func rawSocket(dir statedir.VMDir) string { return filepath.Join(dir.Path, "raw.sock") }

// startRole starts the process that boots the guest, in the network of this thread. It ends when its input does.
func (g *bareGuest) startRole(input bareInput) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=guest")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		g.b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		g.b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.b.Fatal(err)
	}
	g.b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			g.b.Errorf("the guest: %v", err)
		}
	})
	if err := json.NewEncoder(in).Encode(input); err != nil {
		g.b.Fatal(err)
	}
	if err := json.NewDecoder(out).Decode(&g.pids); err != nil {
		g.b.Fatalf("boot the guest: %v", err)
	}
}

func (g *bareGuest) signIn(dir statedir.VMDir) {
	signer := func(path string) ssh.Signer {
		text, err := os.ReadFile(path)
		if err != nil {
			g.b.Fatal(err)
		}
		key, err := ssh.ParsePrivateKey(text)
		if err != nil {
			g.b.Fatal(err)
		}
		return key
	}
	client, err := guest.Dial(g.b.Context(), dir.GuestSocket(),
		guest.Config{UserKey: signer(dir.UserKey()), HostKey: signer(dir.HostKey()).PublicKey(), PreferChaCha: true})
	if err != nil {
		g.b.Fatal(err)
	}
	g.client = client
}

func (g *bareGuest) run(argv ...string) (string, error) {
	var out, errs bytes.Buffer
	result, err := g.client.Exec(context.Background(), banger.ExecRequest{Argv: argv}, guest.Stdio{Stdout: &out, Stderr: &errs})
	if err == nil && (result.ExitStatus() != 0) {
		err = fmt.Errorf("%q: %+v: %s", argv, result, errs.Bytes())
	}
	return out.String(), err
}

func (g *bareGuest) exec(argv ...string) string {
	g.b.Helper()
	out, err := g.run(argv...)
	if err != nil {
		g.b.Fatal(err)
	}
	return out
}

// play is this program in another role.
func play(role string) error {
	if role == "stack" {
		runtime.GOMAXPROCS(supervisor.Processors())
		conn, err := net.FileConn(os.NewFile(3, "card"))
		if err != nil {
			return err
		}
		return netstack.New(netstack.Config{Policy: banger.NetFull, Ended: supervisor.FreeLater()}).Serve(conn)
	}
	return playGuest()
}

func playGuest() (err error) {
	var input bareInput
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		return err
	}
	dir := statedir.VMDir{Path: input.Config.Dir}
	network := channel.Network{MAC: vmm.MAC(input.Config.ID).String(), Addresses: []netip.Prefix{netstack.Guest4, netstack.Guest6},
		Gateways: []netip.Addr{netstack.Gateway4, netstack.Gateway6}, DNS: []netip.Addr{netstack.Gateway4}}
	g, err := bare.Boot(input.Config, network, []bare.Socket{
		{Path: filepath.Join(dir.Path, "tap.sock"), Args: func(fd int) []string {
			return []string{"-netdev", fmt.Sprintf("stream,id=tap,server=on,addr.type=fd,addr.str=%d", fd), "-device", "virtio-net-device,netdev=tap,mac=" + tapVsockCard.mac}
		}},
		{Path: filepath.Join(dir.Path, "raw-qemu.sock"), Args: func(fd int) []string {
			return []string{"-device", "virtio-serial-device,id=raw,max_ports=2", "-chardev", fmt.Sprintf("socket,id=rawdata,fd=%d,server=on,wait=off", fd),
				"-device", "virtserialport,bus=raw.0,chardev=rawdata,name=bench.channel"}
		}},
	}, "-netdev", "user,id=slirp", "-device", "virtio-net-device,netdev=slirp,mac="+slirpCard.mac)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	raw, err := channel.Serve(g.More[1], rawSocket(dir))
	if err != nil {
		return err
	}
	defer raw.Close()
	own, err := serveCard(g.Network, "/proc/self/exe", roleEnv+"=stack")
	if err != nil {
		return err
	}
	defer own.Kill()
	tap, err := serveCard(g.More[0], input.TapVsock)
	if err != nil {
		return err
	}
	defer tap.Kill()
	if err := json.NewEncoder(os.Stdout).Encode(pids{g.PID, own.Pid, tap.Pid}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// serveCard starts a program with a card's stream as descriptor 3. It is the program's alone: a poller of this process would wake up for each
// frame, too.
func serveCard(conn net.Conn, program string, env ...string) (*os.Process, error) {
	defer conn.Close()
	file, err := conn.(*net.UnixConn).File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command(program)
	cmd.Env, cmd.Stderr, cmd.ExtraFiles = append(os.Environ(), env...), os.Stderr, []*os.File{file}
	err = cmd.Start()
	return cmd.Process, err
}
