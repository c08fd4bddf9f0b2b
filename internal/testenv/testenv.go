// Package testenv is what tests that drive the built programs stand on: an ordinary user, the built binaries, a state
// directory of their own, and skips that name what is missing.
package testenv

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// userName is the ordinary user that the suite makes when root runs it.
const userName = "banger-test"

// Skip skips t and names what is missing. With BANGER_REQUIRE set to a list that has the thing, it fails instead.
func Skip(t testing.TB, missing string) {
	t.Helper()
	for _, required := range strings.Split(os.Getenv("BANGER_REQUIRE"), ",") {
		if required == missing || required == "all" {
			t.Fatalf("needs %s, and BANGER_REQUIRE names it", missing)
		}
	}
	t.Skipf("needs %s", missing)
}

// RequireTool gives the path of a program, or skips.
func RequireTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Skip(t, name)
	}
	return path
}

// Tier is $BANGER_TIER: "test", which unset means too, "smoke" or "soak".
func Tier() string { return cmp.Or(os.Getenv("BANGER_TIER"), "test") }

// RequireTier skips unless the tier is one of tiers.
func RequireTier(t testing.TB, tiers ...string) {
	t.Helper()
	tier := Tier()
	for _, want := range tiers {
		if want == tier {
			return
		}
	}
	t.Skipf("needs BANGER_TIER=%s (make %s)", tiers[0], tiers[0])
}

// User is whom daemon, machines and VMMs run as in tests.
type User struct {
	Name     string
	UID, GID uint32
	Home     string
}

// OrdinaryUser is the caller when that is not root, else the suite's own user, made on first use with a range of
// subordinate ids.
func OrdinaryUser(t testing.TB) User {
	t.Helper()
	u, err := ordinaryUser()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var ordinaryUser = sync.OnceValues(func() (User, error) {
	if os.Getuid() != 0 {
		return lookup(user.Current())
	}
	if u, err := lookup(user.Lookup(userName)); err == nil {
		return u, ensureSubIDs()
	}
	if out, err := exec.Command("useradd", "--create-home", "--shell", "/bin/bash", userName).CombinedOutput(); err != nil {
		return User{}, fmt.Errorf("make user %s: %v: %s", userName, err, out)
	}
	if err := ensureSubIDs(); err != nil {
		return User{}, err
	}
	return lookup(user.Lookup(userName))
})

func lookup(u *user.User, err error) (User, error) {
	if err != nil {
		return User{}, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return User{Name: u.Username, UID: uint32(uid), GID: uint32(gid), Home: u.HomeDir}, errors.Join(err1, err2)
}

func ensureSubIDs() error {
	for file, flag := range map[string]string{"/etc/subuid": "--add-subuids", "/etc/subgid": "--add-subgids"} {
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if bytes.Contains(data, []byte(userName+":")) {
			continue
		}
		if out, err := exec.Command("usermod", flag, "300000-365535", userName).CombinedOutput(); err != nil {
			return fmt.Errorf("give %s subordinate ids: %v: %s", userName, err, out)
		}
	}
	return nil
}

// As makes cmd run as u when the caller is root.
func (u User) As(cmd *exec.Cmd) {
	if os.Getuid() != 0 {
		return
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
}

// Dir makes a directory of u with a short path (unix sockets live in it), removed when the test ends.
func (u User) Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "bt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's directory: %v", err)
		}
	})
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, int(u.UID), int(u.GID))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ModuleRoot is the directory of go.mod.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod above the working directory")
}

// Number is what a variable of the environment says, if that is a number above 0, or otherwise.
func Number(variable string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return otherwise
}
