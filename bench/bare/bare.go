// Package bare boots a guest by QEMU with the command line that banger uses and nothing of banger's own around it.
package bare

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/crypto/ssh"

	"banger/internal/channel"
	"banger/internal/guest"
	"banger/internal/machine"
	"banger/internal/statedir"
	"banger/internal/supervisor"
	"banger/internal/vmm/qemu"
)

// Socket is one more of QEMU's sockets, for a device that banger's machines do not have.
type Socket struct {
	Path string                // where it is made
	Args func(fd int) []string // the device, whose back end listens on that descriptor
}

// Guest runs until it is closed.
type Guest struct {
	Took    time.Duration // from the start of QEMU until the agent has answered
	PID     int
	Network net.Conn   // frames of the card
	More    []net.Conn // of the further sockets

	cmd    *exec.Cmd
	server *channel.Server
	events *guest.EventStream
	conns  []net.Conn
}

// Close kills the guest.
func (g *Guest) Close() error {
	if g.events != nil {
		g.events.Close()
	}
	if g.server != nil {
		g.server.Close()
	}
	for _, conn := range g.conns {
		conn.Close()
	}
	if g.cmd.Process == nil {
		return nil
	}
	err := g.cmd.Process.Kill()
	_ = g.cmd.Wait()
	return err
}

// Boot starts the VM of a configuration, which must not run, with more sockets and arguments, and waits for its agent. The agent is
// reached by the VM's guest socket while this process lives.
func Boot(cfg machine.Config, network channel.Network, sockets []Socket, args ...string) (_ *Guest, err error) {
	dir := statedir.VMDir{Path: cfg.Dir}
	listener, err := channel.Listen(dir.GuestPortSocket(channel.PortEvents))
	if err != nil {
		return nil, err
	}
	events := guest.NewEvents(listener)
	defer events.Close()

	begun := time.Now()
	g := &Guest{cmd: exec.Command(cfg.QEMU)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	paths := []string{dir.QMPSocket(), dir.ConsoleSocket(), dir.ChannelSocket(), dir.NetworkSocket()}
	own := len(paths)
	args = append(qemu.Args(supervisor.Spec(cfg)), args...)
	for _, s := range sockets {
		args = append(args, s.Args(firstDescriptor+len(paths))...)
		paths = append(paths, s.Path)
	}
	g.cmd.Args = append(g.cmd.Args, args...)
	g.cmd.Stderr = os.Stderr
	for _, path := range paths {
		file, conn, err := listenAndDial(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		g.cmd.ExtraFiles = append(g.cmd.ExtraFiles, file)
		g.conns = append(g.conns, conn)
	}
	g.Network, g.More = g.conns[own-1], g.conns[own:]
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	g.PID = g.cmd.Process.Pid
	go io.Copy(io.Discard, g.conns[1])
	if g.server, err = channel.Serve(g.conns[2], dir.GuestSocket()); err != nil {
		return nil, err
	}
	if err := letRun(g.conns[0]); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if g.events, err = events.Accept(ctx); err != nil {
		return nil, err
	}
	id, err := identity(dir, network)
	if err != nil {
		return nil, err
	}
	if _, err := g.events.Identify(ctx, id); err != nil {
		return nil, err
	}
	g.Took = time.Since(begun)
	return g, nil
}

// firstDescriptor is that of a process's first extra file. The four of banger's own come in the order of package qemu.
const firstDescriptor = 3

// listenAndDial makes a socket that QEMU will own, and connects to it.
func listenAndDial(path string) (*os.File, net.Conn, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close() // and remove the path; both ends are there
	file, err := l.File()
	if err != nil {
		return nil, nil, err
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, conn, nil
}

// letRun tells QEMU to run the guest.
func letRun(qmp net.Conn) error {
	lines := bufio.NewScanner(qmp)
	for _, command := range []string{"qmp_capabilities", "cont"} {
		if !lines.Scan() { // the greeting, then the answer to the command before
			return fmt.Errorf("QMP: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
		}
		if _, err := fmt.Fprintf(qmp, "{\"execute\":%q}\n", command); err != nil {
			return err
		}
	}
	go func() {
		for lines.Scan() {
		}
	}()
	return nil
}

func identity(dir statedir.VMDir, network channel.Network) (id channel.Identify, err error) {
	host, err := os.ReadFile(dir.HostKey())
	if err != nil {
		return id, err
	}
	private, err := os.ReadFile(dir.UserKey())
	if err != nil {
		return id, err
	}
	user, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return id, err
	}
	return channel.Identify{HostName: "bare", HostKey: string(host), UserKeys: []string{string(ssh.MarshalAuthorizedKey(user.PublicKey()))},
		Clock: time.Now(), Entropy: make([]byte, 32), Network: network}, nil
}
