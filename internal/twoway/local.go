package twoway

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/transfer"
)

// Local is a side in a directory of this machine.
type Local struct {
	side  string // "host" or "guest", for the names of what is kept
	root  int
	owner *transfer.Owner
	watch tracker

	mu   sync.Mutex // one change at a time; between processes flock(2) on the root sees to it
	seen map[string]sighting

	step func(name string) error // for tests: an error ends the process here
}

// sighting remembers what a file had in it as long as it is the same.
type sighting struct {
	ino          uint64
	size         int64
	mtime, ctime unix.Timespec
	found        Found
}

// OpenLocal opens the tree at a path, in which symbolic links are followed. What is new in it belongs to owner, nil: who runs this. It
// must be closed. Errors: ErrUnavailable at the kernel's limit of watches.
func OpenLocal(name, side string, owner *transfer.Owner) (*Local, error) {
	w, err := newWatcher(side)
	if err != nil {
		return nil, err
	}
	l, err := openLocal(name, side, owner, w)
	if err != nil {
		w.close()
	}
	return l, err
}

func openLocal(name, side string, owner *transfer.Owner, w tracker) (*Local, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError(&os.PathError{Op: "open", Path: name, Err: err})
	}
	return &Local{side: side, root: fd, owner: owner, watch: w, seen: map[string]sighting{}, step: func(string) error { return nil }}, nil
}

// tracker tells what may have changed: a watcher; in tests who changes it.
type tracker interface {
	add(dir int, at string) error
	bell() <-chan struct{}
	take() (paths []string, all bool, err error)
	close()
}

// Close ends it.
func (l *Local) Close() error {
	l.watch.close()
	return unix.Close(l.root)
}

func (l *Local) Changed() <-chan struct{}             { return l.watch.bell() }
func (l *Local) Take() ([]string, bool, error)        { return l.watch.take() }
func (l *Local) parent(at string) (fd int, err error) { return transfer.Beneath(l.root, path.Dir(at)) }

// lock keeps others that keep the same directory alike from what is about to change.
func (l *Local) lock() (unlock func(), err error) {
	l.mu.Lock()
	for {
		if err = unix.Flock(l.root, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		l.mu.Unlock()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return func() {
		_ = unix.Flock(l.root, unix.LOCK_UN) // can't fail for a lock that is held
		l.mu.Unlock()
	}, nil
}

// absent tells errors of a path on which something is not there, or no directory.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV)
}

// pathError gives errors of one path a kind: ErrRefused and ErrInvalid concern that path only.
func pathError(err error) error {
	if err == nil || banger.KindName(err) != "internal" {
		return err
	}
	kind, hint := banger.ErrUnavailable, ""
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint = "make space there"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ETXTBSY), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EXDEV):
		kind = banger.ErrRefused
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EILSEQ):
		kind = banger.ErrInvalid
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		kind = banger.ErrNotFound
	}
	return &banger.Error{Kind: kind, Err: err, Hint: hint}
}

func (l *Local) List(ctx context.Context, dirs []string) (all []Child, err error) {
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if all, err = l.list(all, dir); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (l *Local) list(all []Child, dir string) ([]Child, error) {
	fd, err := transfer.Beneath(l.root, dir)
	if absent(err) || errors.Is(err, unix.EACCES) {
		return all, nil
	}
	if err != nil {
		return nil, pathError(&os.PathError{Op: "open", Path: dir, Err: err})
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	err = l.watch.add(fd, dir) // first: what comes after the listing is told
	var entries []os.DirEntry
	if err == nil {
		entries, err = f.ReadDir(-1)
	}
	if absent(err) { // it has been removed meanwhile
		return all, nil
	}
	if err != nil {
		return nil, pathError(err)
	}
	for _, e := range entries {
		if isStaged(e.Name()) {
			kept, err := l.recover(fd, e.Name(), dir)
			if err != nil {
				return nil, pathError(err)
			}
			if kept != "" {
				all = append(all, Child{Path: kept})
			}
			continue
		}
		if len(all) >= MaxFiles {
			return nil, tooMany(l.side)
		}
		all = append(all, Child{Path: path.Join(dir, e.Name()), Dir: e.IsDir()})
	}
	return all, nil
}

func tooMany(side string) error {
	return &banger.Error{Kind: banger.ErrUnsupported, Op: "watch", Subject: side, Err: fmt.Errorf("it has more than %d files", MaxFiles), Hint: "let .gitignore name what need not be kept alike"}
}

func (l *Local) Look(ctx context.Context, paths []string, blobs bool) ([]Found, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Found, len(paths))
	for i, at := range paths {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		list[i] = l.look(at, blobs)
	}
	return list, nil
}

// look gives the state of a path. What can't be looked at is left alone.
func (l *Local) look(at string, blobs bool) Found {
	dir, err := l.parent(at)
	if err != nil {
		delete(l.seen, at)
		return unseen(err)
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, path.Base(at), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		delete(l.seen, at)
		return unseen(err)
	}
	s, ok := l.seen[at]
	if ok && st.Mode&unix.S_IFMT == unix.S_IFREG && s.ino == st.Ino && s.size == st.Size && s.mtime == st.Mtim && s.ctime == st.Ctim && (s.found.Blob != "" || !blobs) {
		return s.found
	}
	found, err := lookIn(dir, path.Base(at), blobs)
	if err != nil || found.Kind != File {
		delete(l.seen, at)
	}
	if err != nil {
		return unseen(err)
	}
	// A file that has just changed may change again within the same tick of the clock.
	if changed := time.Unix(st.Ctim.Unix()); found.Kind == File && time.Since(changed) > time.Second {
		l.seen[at] = sighting{st.Ino, st.Size, st.Mtim, st.Ctim, found}
	}
	return found
}

// unseen is what is at a path that gives an error.
func unseen(err error) Found {
	if absent(err) {
		return Found{}
	}
	return Found{State: State{Kind: Other}}
}

// lookIn gives what a name in a directory stands for.
func lookIn(dir int, base string, blob bool) (Found, error) {
	other := Found{State: State{Kind: Other}}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); absent(err) {
		return Found{}, nil
	} else if err != nil {
		return Found{}, &os.PathError{Op: "stat", Path: base, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return Found{State: State{Kind: Dir}}, nil
	case unix.S_IFLNK:
		target, err := readLink(dir, base)
		if absent(err) || errors.Is(err, unix.EINVAL) {
			return other, nil
		}
		f := Found{State: State{Kind: Link, Size: int64(len(target)), Sum: sha256.Sum256([]byte(target))}}
		if blob {
			h := blobHash(f.Size)
			io.WriteString(h, target)
			f.Blob = hex.EncodeToString(h.Sum(nil))
		}
		return f, err
	case unix.S_IFREG:
	default:
		return other, nil
	}
	if st.Size > MaxSize {
		return other, nil
	}
	f, err := openFile(dir, base)
	if absent(err) {
		return Found{}, nil
	}
	if err != nil {
		return other, nil
	}
	defer f.Close()
	found, err := hashFile(f, blob)
	if err != nil { // a bad sector is this file's matter alone
		return other, nil
	}
	return found, nil
}

func hashFile(f *os.File, blob bool) (Found, error) {
	other := Found{State: State{Kind: Other}}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return other, err
	}
	sum, h := sha256.New(), blobHash(info.Size())
	to := io.Writer(sum)
	if blob {
		to = io.MultiWriter(sum, h)
	}
	n, err := io.Copy(to, io.LimitReader(f, MaxSize+1))
	if err != nil {
		return Found{}, err
	}
	if n > MaxSize {
		return other, nil
	}
	found := Found{State: State{Kind: File, Exec: info.Mode()&0o100 != 0, Size: n, Sum: Sum(sum.Sum(nil))}}
	if blob && n == info.Size() {
		found.Blob = hex.EncodeToString(h.Sum(nil))
	}
	return found, nil
}

func blobHash(size int64) hash.Hash {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

func readLink(dir int, base string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, base, b)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: base, Err: err}
	}
	return string(b[:n]), nil
}

func openFile(dir int, base string) (*os.File, error) {
	fd, err := transfer.OpenAt(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: base, Err: err}
	}
	return os.NewFile(uintptr(fd), base), nil
}

func (l *Local) Read(_ context.Context, at string) (Item, io.ReadCloser, error) {
	nothing := io.NopCloser(eof{})
	dir, err := l.parent(at)
	if absent(err) {
		return Item{}, nothing, nil
	}
	if err != nil {
		return Item{}, nil, pathError(err)
	}
	item, f, err := readIn(dir, path.Base(at))
	if f == nil || err != nil {
		if err == nil && item.Kind == Link {
			err = unix.Fsync(dir)
		}
		unix.Close(dir)
		return item, nothing, pathError(err)
	}
	return item, &durable{File: f, dir: dir, left: MaxSize + 1}, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// readIn opens a name; a file of the item's kind only.
func readIn(dir int, base string) (Item, *os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); absent(err) {
		return Item{}, nil, nil
	} else if err != nil {
		return Item{}, nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := readLink(dir, base)
		return Item{Kind: Link, Link: []byte(target)}, nil, err
	case unix.S_IFREG:
	default:
		return Item{}, nil, nil
	}
	f, err := openFile(dir, base)
	if absent(err) {
		return Item{}, nil, nil
	}
	if err != nil {
		return Item{}, nil, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return Item{}, nil, errors.Join(err, f.Close())
	}
	return Item{Kind: File, Mode: uint32(info.Mode().Perm())}, f, nil
}

// durable is a file's content that is on the disk once it is read to its end.
type durable struct {
	*os.File
	dir  int
	left int64
}

func (d *durable) Read(p []byte) (int, error) {
	if int64(len(p)) > d.left {
		p = p[:d.left]
	}
	n, err := d.File.Read(p)
	if d.left -= int64(n); d.left == 0 {
		return n, &banger.Error{Kind: banger.ErrRefused, Err: errTooLarge}
	}
	if errors.Is(err, io.EOF) {
		if failed := errors.Join(d.File.Sync(), unix.Fsync(d.dir)); failed != nil {
			err = failed
		}
	}
	return n, err
}

func (d *durable) Close() error { return errors.Join(d.File.Close(), unix.Close(d.dir)) }

var errTooLarge = fmt.Errorf("it has more than %d bytes", MaxSize)
