package netstack

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The tests run in a network namespace of their own, and the servers that they reach in another one, behind a router: nothing
// of this host's network is used, and no rule is bent to make a server on it reachable.
const envRole = "BANGER_NETSTACK_TEST_ROLE"

const (
	roleTests = "tests"
	roleWorld = "world"
)

func TestMain(m *testing.M) {
	var err error
	status := 0
	switch os.Getenv(envRole) {
	case roleWorld:
		err = worldMain()
	case roleTests:
		if slices.Contains(os.Args, "-test.fuzzworker") { // in the namespace of the process that started it
			os.Exit(m.Run())
		}
		var world *exec.Cmd
		if world, err = startWorld(); err == nil {
			status = m.Run()
			world.Process.Kill()
			world.Wait()
		}
	default:
		status, err = inNamespace()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// inNamespace runs the tests as root of namespaces that an ordinary user may make.
func inNamespace() (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), envRole+"="+roleTests)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	signal.Ignore(syscall.SIGINT)
	err := cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// startWorld makes the other namespace and the wire to it, and waits until its servers listen.
func startWorld() (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"="+roleWorld)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err = ip(fmt.Sprintf(`
link set lo up
link add up0 type veth peer name w0 netns %d
addr add 192.0.2.1/24 dev up0
addr add 203.0.113.1/32 dev lo
addr add 2001:db8:1::1/64 dev up0 nodad
link set up0 up
route add default via 192.0.2.254
-6 route add default via 2001:db8:1::fe dev up0`, cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		return nil, err
	}
	in.Close()
	ready := make([]byte, 5)
	if _, err := io.ReadFull(out, ready); err != nil {
		return nil, fmt.Errorf("the world does not come up: %w", err)
	}
	return cmd, nil
}

func ip(lines string) error {
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}
