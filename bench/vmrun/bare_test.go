package vmrun

import (
	"bufio"
	"context"
	"encoding/json"
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

// bareBoot starts QEMU with the command line that banger uses and nothing around it, and gives the time until the guest's
// agent has answered. The guest is killed then.
func bareBoot(cfg machine.Config) (took time.Duration, err error) {
	dir := statedir.VMDir{Path: cfg.Dir}
	listener, err := channel.Listen(dir.GuestPortSocket(channel.PortEvents))
	if err != nil {
		return 0, err
	}
	events := guest.NewEvents(listener)
	defer events.Close()

	begun := time.Now()
	cmd := exec.Command(cfg.QEMU, qemu.Args(supervisor.Spec(cfg))...)
	cmd.Stderr = os.Stderr
	var conns []net.Conn // in the order of QEMU's descriptors: QMP, console, channel
	for _, path := range []string{dir.QMPSocket(), dir.ConsoleSocket(), dir.ChannelSocket()} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return 0, err
		}
		file, err := l.File()
		if err != nil {
			return 0, err
		}
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		conn, err := net.Dial("unix", path)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		conns = append(conns, conn)
		defer l.Close()
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, cmd.Process.Kill()); _ = cmd.Wait() }()
	go io.Copy(io.Discard, conns[1])
	server, err := channel.Serve(conns[2], dir.GuestSocket())
	if err != nil {
		return 0, err
	}
	defer server.Close()
	if err := letRun(conns[0]); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	stream, err := events.Accept(ctx)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	id, err := identity(dir)
	if err != nil {
		return 0, err
	}
	if _, err := stream.Identify(ctx, id); err != nil {
		return 0, err
	}
	return time.Since(begun), nil
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

func identity(dir statedir.VMDir) (id channel.Identify, err error) {
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
		Clock: time.Now(), Entropy: make([]byte, 32)}, nil
}

// playBare is this program in its other role, as the ordinary user: the configuration is on standard input, the time goes
// to standard output.
func playBare() error {
	var cfg machine.Config
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		return err
	}
	took, err := bareBoot(cfg)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}
