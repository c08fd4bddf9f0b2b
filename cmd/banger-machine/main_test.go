package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"banger/internal/testenv"
)

// envPrograms is the directory of the built programs; the tests that need it run as an ordinary user then.
const envPrograms = "BANGER_MACHINE_TEST_PROGRAMS"

// TestMain makes the tests run as the ordinary user when root runs them: programs are built first, then a copy of this
// binary goes on as that user.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(envPrograms) != "" {
		os.Exit(m.Run())
	}
	status, err := runAsOrdinaryUser()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func runAsOrdinaryUser() (status int, err error) {
	dir, err := os.MkdirTemp("/var/tmp", "bm")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	root, err := testenv.ModuleRoot()
	if err != nil {
		return 0, err
	}
	for name, pkg := range map[string]string{"banger-machine": "./cmd/banger-machine", "banger-guest": "./cmd/banger-guest", "tool": "./cmd/banger-machine/testdata/tool"} {
		if err := testenv.Build(root, filepath.Join(dir, name), pkg, "1.2.3-test"); err != nil {
			return 0, err
		}
	}
	self := filepath.Join(dir, "machine.test")
	binary, err := os.ReadFile("/proc/self/exe")
	state := filepath.Join(dir, "state")
	if err := errors.Join(err, os.WriteFile(self, binary, 0o755), os.Chmod(dir, 0o755), os.Mkdir(state, 0o700)); err != nil {
		return 0, err
	}
	var args []string
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-test.testlogfile") { // of root; it only serves go's cache of results
			args = append(args, arg)
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envPrograms+"="+dir)
	if os.Getuid() == 0 {
		if err := checkRootIsRefused(filepath.Join(dir, "banger-machine")); err != nil {
			return 0, err
		}
		u, err := user.Lookup("banger-test")
		if err != nil {
			return 0, fmt.Errorf("machines run as an ordinary user in tests: %w", err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(state, uid, gid)); err != nil {
			return 0, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+u.Username)
	}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

func checkRootIsRefused(program string) error {
	out, err := exec.Command(program, "--config", "/nonexistent").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("does not run as root")) {
		return fmt.Errorf("banger-machine as root: %v: %s, want a refusal", err, out)
	}
	return nil
}

func program(name string) string { return filepath.Join(os.Getenv(envPrograms), name) }

func TestCommandLine(t *testing.T) {
	config := filepath.Join(t.TempDir(), "machine.json")
	for _, test := range []struct {
		name   string
		args   []string
		config string
		status int
		output string
	}{
		{"version", []string{"--version"}, "", 0, "1.2.3-test\n"},
		{"nothing", nil, "", 2, "--config is missing"},
		{"too much", []string{"--config", config, "x"}, "", 2, `unexpected argument "x"`},
		{"no file", []string{"--config", "/nonexistent"}, "", 1, "no such file"},
		{"no JSON", []string{"--config", config}, "nonsense", 1, "read machine configuration"},
		{"other driver", []string{"--config", config}, `{"driver":"other"}`, 1, `no driver "other"`},
		{"no socket", []string{"--config", config}, `{"driver":"qemu"}`, 1, "descriptor 3 is no listening socket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(config, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program("banger-machine"), test.args...)
			out, _ := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != test.status || !strings.Contains(string(out), test.output) {
				t.Errorf("banger-machine %q = %d, %q, want %d and %q", test.args, status, out, test.status, test.output)
			}
		})
	}
}
