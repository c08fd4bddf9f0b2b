package banger

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// MaxFileSync is how many entries one VM may have from one place: the configuration, or its own flags.
const MaxFileSync = 100

// FileSync is a file or directory in the home of the host's user that VMs get a copy of, anew at each start.
type FileSync struct {
	Host  string `json:"host" toml:"host"`             // "~/.netrc", or absolute and in the home
	Guest string `json:"guest,omitempty" toml:"guest"` // "~/.netrc", in the home of the VM's user, or below /root; empty: as in the host's home
	Mode  string `json:"mode,omitempty" toml:"mode"`   // of a file, in octal; empty: "0600". What is in a directory keeps its own
}

// defaultSyncMode is that of files whose entry names none: they may well be secrets.
const defaultSyncMode = 0o600

// Bits gives the permission bits of a file; those of a mode that Paths refuses are the default.
func (f FileSync) Bits() uint32 {
	if bits, err := f.bits(); err == nil {
		return bits
	}
	return defaultSyncMode
}

func (f FileSync) bits() (uint32, error) {
	if f.Mode == "" {
		return defaultSyncMode, nil
	}
	n, err := strconv.ParseUint(f.Mode, 8, 32)
	if err != nil || n < 1 || n > 0o777 {
		return 0, fmt.Errorf("mode %.40q: want octal digits from 0001 to 0777, such as 0600", f.Mode)
	}
	return uint32(n), nil
}

// ParseFileSync reads "HOST", "HOST:GUEST" or "HOST:GUEST:MODE"; Paths checks what they say. Errors: ErrInvalid.
func ParseFileSync(text string) (FileSync, error) {
	parts := strings.Split(text, ":")
	if len(parts) > 3 || len(parts) > 1 && slices.Contains(parts[1:], "") {
		return FileSync{}, fileSyncError(text, errors.New("want HOST, HOST:GUEST or HOST:GUEST:MODE"))
	}
	parts = append(parts, "", "")
	return FileSync{Host: parts[0], Guest: parts[1], Mode: parts[2]}, nil
}

// String is for people.
func (f FileSync) String() string {
	text := f.Host
	if f.Guest != "" {
		text += " to " + f.Guest
	}
	if f.Mode != "" {
		text += " with mode " + f.Mode
	}
	return text
}

func fileSyncError(subject string, err error) error {
	return &Error{Kind: ErrInvalid, Op: "sync", Subject: fmt.Sprintf("%.300q", subject), Err: err, Hint: "for example: ~/.netrc, or ~/keys/deploy:~/.ssh/id_ed25519:0600"}
}

// Paths gives the path on the host, below home, and the path in the guest: "~/…" or "/root/…", both clean. It looks at no file.
// Errors: ErrInvalid for a path that is empty, relative, not clean, outside of home, or somebody else's, and for a bad mode.
func (f FileSync) Paths(home string) (host, guest string, err error) {
	if host, err = f.hostPath(home); err == nil {
		guest, err = f.guestPath(host)
	}
	if err == nil {
		_, err = f.bits()
	}
	if err != nil {
		return "", "", fileSyncError(f.Host, err)
	}
	return host, guest, nil
}

func (f FileSync) hostPath(home string) (string, error) {
	name, ofHome := strings.CutPrefix(f.Host, "~/")
	if !ofHome {
		if err := checkAbsolute(f.Host); err != nil {
			return "", err
		}
		rel, err := filepath.Rel(home, f.Host)
		if err != nil {
			return "", err
		}
		name = rel
	}
	if err := checkBelow(name); err != nil {
		if !ofHome && (name == ".." || strings.HasPrefix(name, "../")) {
			err = fmt.Errorf("it is not in your home %s", home)
		}
		return "", err
	}
	return name, nil
}

func (f FileSync) guestPath(host string) (string, error) {
	inVM := func(err error) (string, error) { return "", fmt.Errorf("path in the VM %.300q: %w", f.Guest, err) }
	if f.Guest == "" {
		return "~/" + host, nil
	}
	name, ok := strings.CutPrefix(f.Guest, "~/")
	if !ok {
		if err := checkAbsolute(f.Guest); err != nil {
			return inVM(err)
		}
		if name, ok = strings.CutPrefix(f.Guest, "/root/"); !ok {
			return inVM(errors.New("want one below ~/ or /root/"))
		}
	}
	if err := checkBelow(name); err != nil {
		return inVM(err)
	}
	return f.Guest, nil
}

func checkAbsolute(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case strings.HasPrefix(name, "~"):
		return errors.New("a home is written ~/…; that of another user can't be named")
	case !strings.HasPrefix(name, "/"):
		return errors.New("it is relative: want ~/… or an absolute path")
	}
	return nil
}

// maxSyncPath bounds a path below a home, in bytes.
const maxSyncPath = 1024

// checkBelow wants a clean path of at least one part.
func checkBelow(name string) error {
	switch {
	case name == "" || name == ".":
		return errors.New("a whole home can't be synced: name what is in it")
	case len(name) > maxSyncPath || strings.ContainsRune(name, 0):
		return fmt.Errorf("it has more than %d bytes, or a NUL", maxSyncPath)
	case !filepath.IsLocal(name) || path.Clean(name) != name:
		return errors.New("it is not clean: no .., no //, no / at its end")
	}
	return nil
}
