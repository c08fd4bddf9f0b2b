package guestagent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

const (
	passwdFile    = "/etc/passwd"
	groupFile     = "/etc/group"
	maxAccounts   = 1 << 20 // bytes of an account file that are read
	fallbackShell = "/bin/sh"
)

// account is who a command runs as.
type account struct {
	Name   string // empty for a uid that /etc/passwd does not know
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
	Home   string
	Shell  string
}

// accounts reads user names from two files in the format of passwd(5) and group(5).
type accounts struct{ passwd, group string }

// find resolves "name", "uid" or "uid:gid"; empty means root. Root and bare uids need no entry.
func (a accounts) find(user string) (account, error) {
	if user == "" {
		user = "root"
	}
	passwd, err := readAccounts(a.passwd)
	if err != nil {
		return account{}, err
	}
	number, group, hasGroup := strings.Cut(user, ":")
	uid, errUID := strconv.ParseUint(number, 10, 32)
	acct, found := searchPasswd(passwd, user, func(entry account) bool { return errUID == nil && uint64(entry.UID) == uid })
	switch {
	case found:
	case user == "root":
		acct = account{Name: "root", Home: "/root", Shell: fallbackShell}
	case errUID == nil:
		acct = account{UID: uint32(uid), Home: "/", Shell: fallbackShell}
	default:
		return account{}, fmt.Errorf("no user %q in the guest", user)
	}
	if hasGroup {
		gid, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("user %q: want name, uid or uid:gid", user)
		}
		acct.GID = uint32(gid)
		return acct, nil
	}
	groups, err := readAccounts(a.group)
	if err != nil {
		return account{}, err
	}
	acct.Groups = memberships(groups, acct.Name)
	return acct, nil
}

func readAccounts(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b bytes.Buffer
	if info, err := f.Stat(); err == nil {
		b.Grow(int(min(info.Size(), maxAccounts)) + bytes.MinRead) // all of it by one read
	}
	_, err = b.ReadFrom(io.LimitReader(f, maxAccounts))
	return b.String(), err
}

// searchPasswd gives the entry of that name, or else the first that other accepts.
func searchPasswd(passwd, name string, other func(account) bool) (found account, ok bool) {
	for line := range strings.Lines(passwd) {
		entry, valid := parsePasswd(strings.TrimRight(line, "\r\n"))
		if !valid {
			continue
		}
		if entry.Name == name {
			return entry, true
		}
		if !ok && other(entry) {
			found, ok = entry, true
		}
	}
	return found, ok
}

func parsePasswd(line string) (account, bool) {
	f := strings.Split(line, ":")
	if len(f) != 7 || f[0] == "" {
		return account{}, false
	}
	uid, err1 := strconv.ParseUint(f[2], 10, 32)
	gid, err2 := strconv.ParseUint(f[3], 10, 32)
	if err1 != nil || err2 != nil {
		return account{}, false
	}
	acct := account{Name: f[0], UID: uint32(uid), GID: uint32(gid), Home: f[5], Shell: f[6]}
	if acct.Home == "" {
		acct.Home = "/"
	}
	if acct.Shell == "" {
		acct.Shell = fallbackShell
	}
	return acct, true
}

func memberships(groups, name string) (gids []uint32) {
	if name == "" {
		return nil
	}
	for line := range strings.Lines(groups) {
		if !strings.Contains(line, name) {
			continue
		}
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) != 4 {
			continue
		}
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if member == name {
				gids = append(gids, uint32(gid))
			}
		}
	}
	return gids
}
