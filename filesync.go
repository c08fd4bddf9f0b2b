package banger

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// MaxFileSync is how many entries one VM may have from one place: the configuration, or its own flags.
const MaxFileSync = 100

// FileSync is a file or directory in the home of the host's user that VMs get a copy of, anew at each start.
type FileSync struct {
	Host  string   `json:"host" toml:"host"`                     // "~/.netrc", or absolute and in the home
	Guest string   `json:"guest,omitempty" toml:"guest"`         // "~/.netrc", in the home of the VM's user, or below /root; empty: as in the host's home
	Mode  FileMode `json:"mode,omitempty" toml:"mode,omitempty"` // of a file; 0: 0600. What is in a directory keeps its own
}

// FileMode is permission bits that are written in octal: "0600".
type FileMode uint32

// UnmarshalText reads octal digits up to 0777. Errors: ErrInvalid.
func (m *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n < 1 || n > 0o777 {
		return Invalidf("mode %.40q: want octal digits from 0001 to 0777, such as 0600", text)
	}
	*m = FileMode(n)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (m FileMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// ParseFileSync reads "HOST", "HOST:GUEST" or "HOST:GUEST:MODE". It checks the mode only. Errors: ErrInvalid.
func ParseFileSync(text string) (FileSync, error) {
	parts := strings.Split(text, ":")
	f := FileSync{Host: parts[0]}
	var err error
	switch len(parts) {
	case 3:
		err = f.Mode.UnmarshalText([]byte(parts[2]))
		fallthrough
	case 2:
		if f.Guest = parts[1]; f.Guest == "" {
			err = errors.Join(err, errors.New("the path in the VM is empty"))
		}
	case 1:
	default:
		err = errors.New("it has more than three parts")
	}
	if err != nil {
		return FileSync{}, fileSyncError(text, err)
	}
	return f, nil
}

func fileSyncError(subject string, err error) error {
	return &Error{Kind: ErrInvalid, Op: "sync", Subject: fmt.Sprintf("%.300q", subject), Err: err, Hint: "for example: ~/.netrc, or ~/keys/deploy:~/.ssh/id_ed25519:0600"}
}

// Paths gives the path on the host, below home, and the path in the guest: "~/…" or "/root/…", both clean. It looks at no file.
// Errors: ErrInvalid for a path that is empty, relative, not clean, outside of home, or somebody else's.
func (f FileSync) Paths(home string) (host, guest string, err error) {
	if host, err = f.hostPath(home); err == nil {
		guest, err = f.guestPath(host)
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
