package proc

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
	"testing"
)

// The test binary is its own shim, as banger's programs are.
func TestMain(m *testing.M) {
	MaybeConfineMain()
	os.Exit(m.Run())
}

// ordinary makes cmd-like attributes run as the ordinary user of the tests when root runs them.
func ordinary(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("banger-test")
	if err != nil {
		t.Skipf("needs the user banger-test: %v", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
