package guestagent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/filesync"
	"banger/internal/transfer"
	"banger/internal/tree"
)

const (
	maxMarks    = 8 << 20 // bytes of the file of marks
	maxAsides   = 99      // versions of one file that are kept
	asideSuffix = ".banger-old"
	noteBytes   = 300
)

// bringUpToDate takes the host's files for the default user.
func (s *Server) bringUpToDate(src tree.Source) (transfer.Synced, error) {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	_, _, user := s.settings()
	acct, err := s.accounts.find(user)
	if err != nil {
		return transfer.Synced{}, err
	}
	return (&syncer{marksFile: filepath.Join(diskMount, banger.DiskSyncFile), tops: map[string]top{"~": {acct.Home, acct.UID, acct.GID}, "root": {"/root", 0, 0}}}).run(src)
}

// top is a home that files are synced into, and whom they belong to.
type top struct {
	dir      string
	uid, gid uint32
}

// syncer brings files up to date. What it wrote last is remembered by marks: a file that has no longer the mark was changed in the guest.
// Such a file stays while the host's has not changed, and is moved aside when that has.
type syncer struct {
	marksFile string
	tops      map[string]top // by the first part of paths

	marks, next map[string]string // by path in the guest
	synced      transfer.Synced
}

func (s *syncer) run(src tree.Source) (transfer.Synced, error) {
	s.marks, s.next = readMarks(s.marksFile), map[string]string{}
	for e, err := range src {
		if err != nil {
			return s.synced, errors.Join(err, s.writeMarks())
		}
		if err := s.entry(e); err != nil {
			note := err.Error()
			s.synced.Add(&s.synced.Left, e.Path, note[:min(len(note), noteBytes)])
		}
	}
	return s.synced, s.writeMarks()
}

// readMarks gives what the last run remembered; without it every file counts as one that the guest has changed.
func readMarks(name string) map[string]string {
	marks := map[string]string{}
	f, err := os.Open(name)
	if err != nil {
		return marks
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxMarks)).Decode(&marks); err != nil {
		logf("%s: %v", name, err)
		return map[string]string{}
	}
	return marks
}

func (s *syncer) writeMarks() error {
	if maps.Equal(s.marks, s.next) {
		return nil
	}
	text, err := json.Marshal(s.next)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.marksFile, text, 0o600)
}

func (s *syncer) entry(e tree.Entry) error {
	first, below, _ := strings.Cut(e.Path, "/")
	to, ok := s.tops[first]
	if !ok || below == "" || e.Kind != tree.File && e.Kind != tree.Dir {
		return errors.New("it is nothing that can be synced")
	}
	dir, err := to.open(path.Dir(below))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := path.Base(below)
	if e.Kind == tree.Dir {
		return to.makeDir(dir, name, e.Mode&0o777)
	}
	if e.Size > filesync.MaxFile {
		return errors.New("it is too large")
	}
	content := make([]byte, e.Size)
	if e.Size > 0 {
		if _, err := io.ReadFull(e.Content, content); err != nil {
			return err
		}
	}
	return s.file(to, dir, e.Path, path.Join(to.dir, below), wanted{name, e.Mode & 0o777, content})
}

// wanted is a file as the host has it.
type wanted struct {
	name    string
	mode    uint32
	content []byte
}

// file decides about one file; at is its path in the stream, full that in the guest.
func (s *syncer) file(to top, dir int, at, full string, w wanted) error {
	last, want := s.marks[full], filesync.Mark(w.mode, w.content)
	if last != "" {
		s.next[full] = last // unless something is done
	}
	now, err := markOf(dir, w.name)
	switch {
	case last == want && now != want: // only the guest has changed or removed it
		return nil
	case err != nil:
		return err
	case now == want:
	default:
		aside, err := to.place(dir, w, now, last)
		if err != nil {
			return err
		}
		s.synced.Written++
		if aside != "" {
			s.synced.Add(&s.synced.Kept, at, aside)
		}
	}
	s.next[full] = want
	return nil
}

// What markOf gives for what is no file that could have been synced.
const (
	markNone  = ""
	markLink  = "link"
	markLarge = "large"
)

// markOf tells what a name stands for. Errors: it is neither a file nor a symbolic link.
func markOf(dir int, name string) (string, error) {
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	switch {
	case errors.Is(err, unix.ENOENT):
		return markNone, nil
	case errors.Is(err, unix.ELOOP):
		return markLink, nil
	case errors.Is(err, unix.ENXIO): // a socket, or a device that nobody serves
		return "", errors.New("something that is no file is there")
	case err != nil:
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("something that is no file is there")
	}
	var content bytes.Buffer
	n, err := io.Copy(&content, io.LimitReader(f, filesync.MaxFile+1))
	if err != nil {
		return "", err
	}
	if n > filesync.MaxFile {
		return markLarge, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	return filesync.Mark(st.Mode&0o7777, content.Bytes()), nil
}

// place gives a name the host's file. What had the name before is exchanged for it, so that a change of the last moment is not lost, and
// stays under the name that is given, unless it has the mark last.
func (t top) place(dir int, w wanted, now, last string) (aside string, err error) {
	aside, err = t.write(dir, w)
	if err != nil {
		return "", err
	}
	flags := uint(unix.RENAME_EXCHANGE)
	if now == markNone {
		flags = unix.RENAME_NOREPLACE
	}
	if err := unix.Renameat2(dir, aside, dir, w.name, flags); err != nil {
		return "", errors.Join(fmt.Errorf("it changes while it is replaced: %w", err), unix.Unlinkat(dir, aside, 0))
	}
	if now == markNone {
		return "", unix.Fsync(dir)
	}
	if old, err := markOf(dir, aside); err == nil && old == last && last != "" {
		return "", errors.Join(unix.Unlinkat(dir, aside, 0), unix.Fsync(dir))
	}
	return aside, unix.Fsync(dir)
}

// write makes the file under the first name that is free beside it.
func (t top) write(dir int, w wanted) (name string, err error) {
	fd := -1
	for n := 1; ; n++ {
		name = w.name + asideSuffix
		if n > 1 {
			name += fmt.Sprintf(".%d", n)
		}
		fd, err = openBeneath(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EEXIST) || n == maxAsides {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(w.content)
	err = errors.Join(err, unix.Fchown(fd, int(t.uid), int(t.gid)), unix.Fchmod(fd, w.mode), f.Sync(), f.Close())
	if err != nil {
		return "", errors.Join(err, unix.Unlinkat(dir, name, 0))
	}
	return name, nil
}

// open opens a directory below the home and makes what is missing of it. No symbolic link is followed on the way.
func (t top) open(below string) (int, error) {
	fd, err := unix.Open(t.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: t.dir, Err: err}
	}
	if below == "." {
		return fd, nil
	}
	for part := range strings.SplitSeq(below, "/") {
		up := fd
		if err = t.makeDir(up, part, 0o700); err == nil {
			fd, err = openBeneath(up, part, unix.O_RDONLY|unix.O_DIRECTORY)
		}
		unix.Close(up)
		if err != nil {
			return -1, fmt.Errorf("%s: %w", part, err)
		}
	}
	return fd, nil
}

// makeDir makes a directory unless there is one. Errors: something else has its name.
func (t top) makeDir(dir int, name string, mode uint32) error {
	err := unix.Mkdirat(dir, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		fd, err := openBeneath(dir, name, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return errors.New("it is no directory, or a symbolic link, which is not followed")
		}
		return unix.Close(fd)
	}
	if err != nil {
		return err
	}
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fchown(fd, int(t.uid), int(t.gid)), unix.Fchmod(fd, mode), unix.Close(fd))
}

// openBeneath opens a name in a directory; a symbolic link is refused.
func openBeneath(dir int, name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o600
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}
