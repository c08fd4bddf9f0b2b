package netstack

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"testing"

	"banger/internal/testenv"
)

// The tests run in a network namespace of their own, and the servers that they reach in another one, behind a router: nothing
// of this host's network is used, and no rule is bent to make a server on it reachable.
const envRole = "BANGER_NETSTACK_TEST_ROLE"

const roleTests = "tests"

func TestMain(m *testing.M) {
	testenv.MaybeInternetMain()
	var err error
	status := 0
	switch os.Getenv(envRole) {
	case roleTests:
		if slices.Contains(os.Args, "-test.fuzzworker") { // in the namespace of the process that started it
			os.Exit(m.Run())
		}
		status, err = runTests(m)
	default:
		status, err = inNamespace()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func runTests(m *testing.M) (int, error) {
	internet, err := testenv.StartInternet()
	if err != nil {
		return 0, err
	}
	defer internet.Wait()
	defer internet.Process.Kill()
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		return 0, err
	}
	return m.Run(), nil
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
