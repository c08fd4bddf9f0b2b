package proc

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Credentials are what a process may do by who it is (proc_pid_status(5)).
type Credentials struct {
	UIDs, GIDs [4]int // real, effective, saved, file system

	Inheritable, Permitted, Effective, Bounding, Ambient uint64 // capability sets

	NoNewPrivs bool
	Seccomp    int // 0 none, 1 strict, 2 filter
}

// Creds reads the credentials of a process.
func Creds(pid int) (Credentials, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Credentials{}, err
	}
	return parseCreds(status)
}

func parseCreds(status []byte) (Credentials, error) {
	var c Credentials
	sets := map[string]*uint64{"CapInh": &c.Inheritable, "CapPrm": &c.Permitted, "CapEff": &c.Effective, "CapBnd": &c.Bounding,
		"CapAmb": &c.Ambient}
	for s := bufio.NewScanner(bytes.NewReader(status)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		value = strings.TrimSpace(value)
		var err error
		switch name {
		case "Uid":
			_, err = fmt.Sscan(value, &c.UIDs[0], &c.UIDs[1], &c.UIDs[2], &c.UIDs[3])
		case "Gid":
			_, err = fmt.Sscan(value, &c.GIDs[0], &c.GIDs[1], &c.GIDs[2], &c.GIDs[3])
		case "NoNewPrivs":
			c.NoNewPrivs = value == "1"
		case "Seccomp":
			c.Seccomp, err = strconv.Atoi(value)
		default:
			if set := sets[name]; set != nil {
				*set, err = strconv.ParseUint(value, 16, 64)
			}
		}
		if err != nil {
			return Credentials{}, fmt.Errorf("process status field %s: %w", name, err)
		}
	}
	return c, nil
}
