package twoway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/transfer"
)

// A file is written under a name that begins with stagingNew and may be thrown away: who writes it keeps it locked (flock(2)). Before it changes places with what is at its path it
// gets a name that begins with stagingOut and tells what it is and what is expected to come out, so that who finds it after a crash knows
// whether it is the only copy of something: see [Local.recover].
const (
	stagingNew = stagingPrefix + "new-"
	stagingOut = stagingPrefix + "out-" // OLD-NEW-RANDOM-NAME
	keepSum    = "----------------"     // for OLD: what comes out is kept
	randomLen  = 8
	maxOutBase = 100
)

func isStaged(name string) bool { return strings.HasPrefix(name, stagingPrefix) }

func outName(put Put, fresh State) string {
	old := put.Expect.Sum.short()
	if put.Always {
		old = keepSum
	}
	base := path.Base(put.Path)
	return stagingOut + old + "-" + fresh.Sum.short() + "-" + rand.Text()[:randomLen] + "-" + base[:min(maxOutBase, len(base))]
}

func (l *Local) Write(ctx context.Context, put Put, item Item, content io.Reader) (Result, error) {
	result, err := l.write(ctx, put, item, content)
	return result, pathError(err)
}

func (l *Local) write(ctx context.Context, put Put, item Item, content io.Reader) (Result, error) {
	dir, err := l.makeParent(put.Path)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return Result{Outcome: Clash}, nil
	}
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(dir)
	name := stagingNew + rand.Text()[:randomLen]
	var f *os.File
	var fresh State
	if item.Kind != Link {
		if f, fresh, err = l.stage(ctx, dir, name, item, content); err != nil {
			return Result{}, err
		}
	}
	unlock, err := l.lock()
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close(), unix.Unlinkat(dir, name, 0))
		}
		return Result{}, err
	}
	defer unlock()
	if item.Kind == Link { // it can't be locked itself
		if fresh, err = stageLink(dir, name, item); err != nil {
			return Result{}, err
		}
	}
	p := placing{Local: l, dir: dir, put: put, fresh: fresh, name: name}
	result, err := p.place(f, item)
	if p.name != "" && !errors.Is(err, errCrash) {
		err = errors.Join(err, unlinkOurs(dir, p.name))
	}
	return result, err
}

// errCrash stands for the end of the process in tests: nothing is cleaned up.
var errCrash = errors.New("crash")

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

func unlinkOurs(dir int, name string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && !absent(err) {
		return err
	}
	return nil
}

// makeParent opens the directory of a path, and makes what is missing of it.
func (l *Local) makeParent(at string) (int, error) {
	fd, err := l.parent(at)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if fd, err = transfer.Beneath(l.root, "."); err != nil {
		return -1, err
	}
	for part := range strings.SplitSeq(path.Dir(at), "/") {
		up := fd
		err := unix.Mkdirat(up, part, 0o755)
		if err == nil && l.owner != nil {
			err = unix.Fchownat(up, part, int(l.owner.UID), int(l.owner.GID), unix.AT_SYMLINK_NOFOLLOW)
		}
		if err == nil {
			err = unix.Fsync(up)
		}
		if err == nil || errors.Is(err, unix.EEXIST) {
			fd, err = transfer.Beneath(up, part)
		}
		unix.Close(up)
		if err != nil {
			return -1, err
		}
	}
	return fd, nil
}

// stageLink makes a link under a name of ours.
func stageLink(dir int, name string, item Item) (State, error) {
	target := string(item.Link)
	if target == "" || len(target) >= unix.PathMax || strings.ContainsRune(target, 0) {
		return State{}, banger.Invalidf("the target of a link has %d bytes", len(target))
	}
	return State{Kind: Link, Size: int64(len(target)), Sum: sha256.Sum256(item.Link)}, unix.Symlinkat(target, dir, name)
}

// stage writes a file under a name of ours. On error nothing is left.
func (l *Local) stage(ctx context.Context, dir int, name string, item Item, content io.Reader) (f *os.File, fresh State, err error) {
	if item.Kind != File {
		return nil, State{}, banger.Invalidf("kind %d can't be written", item.Kind)
	}
	if f, err = l.create(dir, name); err != nil {
		return nil, State{}, err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), &limited{ctx: ctx, r: content, left: MaxSize})
	if err != nil {
		return nil, State{}, errors.Join(err, f.Close(), unix.Unlinkat(dir, name, 0))
	}
	return f, State{Kind: File, Exec: item.Mode&0o100 != 0, Size: n, Sum: Sum(sum.Sum(nil))}, nil
}

// create makes a file and locks it before [Local.recover] can see it.
func (l *Local) create(dir int, name string) (*os.File, error) {
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	fd, err := transfer.OpenAt(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close(), unix.Unlinkat(dir, name, 0))
	}
	return f, nil
}

// limited fails beyond a number of bytes and when ctx ends.
type limited struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.ctx.Err() != nil {
		return 0, context.Cause(l.ctx)
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, &banger.Error{Kind: banger.ErrRefused, Err: errTooLarge}
	}
	return n, err
}

// placing is a staged file on its way to its path. The lock is held.
type placing struct {
	*Local
	dir   int
	put   Put
	fresh State
	name  string // that it has now; empty: it is in place
}

// place puts it there, and closes f.
func (p *placing) place(f *os.File, item Item) (Result, error) {
	defer closeFile(f)
	base := path.Base(p.put.Path)
	now, err := lookIn(p.dir, base, false)
	if err != nil {
		return Result{}, err
	}
	if now.Kind == Dir && (p.put.Expect.Kind == Dir || p.put.Expect.Kind == None) {
		if err := unix.Unlinkat(p.dir, base, unix.AT_REMOVEDIR); err != nil {
			return Result{Outcome: Clash}, nil
		}
		now, p.put.Expect = Found{}, State{}
	}
	if p.put.Expect.Kind == Dir {
		p.put.Expect = State{} // it has gone meanwhile
	}
	if now.State != p.put.Expect {
		return Result{Outcome: Stale}, nil
	}
	if err := p.dress(f, item, base, now.Kind); err != nil {
		return Result{}, err
	}
	if err := errors.Join(closeFile(f), p.step("written")); err != nil { // open for writing it would count as unfinished
		return Result{}, err
	}
	result := Result{Outcome: Done, State: p.fresh}
	if now.Kind == None {
		err := unix.Renameat2(p.dir, p.name, p.dir, base, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			return Result{Outcome: Stale}, nil
		}
		if err != nil {
			return Result{}, canRename(err)
		}
		p.name = ""
		return result, unix.Fsync(p.dir)
	}
	result.Kept, err = p.exchange(base)
	return result, errors.Join(err, unix.Fsync(p.dir))
}

// dress gives a new file its owner and mode, those of the one that it replaces as far as it has any.
func (p *placing) dress(f *os.File, item Item, base string, replaced Kind) error {
	owner, mode := p.owner, item.Mode&0o755|0o600
	var st unix.Stat_t
	if replaced == File {
		if err := unix.Fstatat(p.dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		owner = &transfer.Owner{UID: st.Uid, GID: st.Gid}
		mode = st.Mode&0o666 | 0o600
		if p.fresh.Exec {
			mode |= mode & 0o444 >> 2
		}
	}
	if owner != nil && (os.Geteuid() == 0 || int(owner.UID) == os.Geteuid()) {
		err := unix.Fchownat(p.dir, p.name, int(owner.UID), int(owner.GID), unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EPERM) { // a group that is not ours
			return err
		}
	}
	if f == nil {
		return nil
	}
	return errors.Join(unix.Fchmod(int(f.Fd()), mode), f.Sync())
}

func canRename(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return &banger.Error{Kind: banger.ErrUnsupported, Op: "watch", Err: errors.New("the file system can't exchange files (renameat2)"), Hint: "use a directory on ext4, XFS, Btrfs or tmpfs"}
	}
	return err
}

// exchange puts the staged file in place and judges what comes out.
func (p *placing) exchange(base string) (kept string, err error) {
	out := outName(p.put, p.fresh)
	if err := unix.Renameat2(p.dir, p.name, p.dir, out, unix.RENAME_NOREPLACE); err != nil {
		return "", canRename(err)
	}
	p.name = out
	if err := p.step("ready"); err != nil {
		return "", err
	}
	if err := unix.Renameat2(p.dir, out, p.dir, base, unix.RENAME_EXCHANGE); err != nil {
		return "", canRename(err)
	}
	p.name = ""
	if err := p.step("exchanged"); err != nil {
		return "", err
	}
	if !p.put.Always && asExpected(p.dir, out, p.put.Expect) {
		return "", unix.Unlinkat(p.dir, out, 0)
	}
	return rename(p.dir, out, p.put.Keep)
}

// asExpected tells whether a file is what it was taken for, and nobody is about to change it.
func asExpected(dir int, name string, want State) bool {
	if want.Kind != File {
		found, err := lookIn(dir, name, false)
		return err == nil && found.State == want
	}
	f, err := openFile(dir, name)
	if err != nil {
		return false
	}
	defer f.Close()
	// A read lease is not given while a descriptor is open for writing; a file of somebody else, or another kind of file system, gives none.
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); errors.Is(err, unix.EAGAIN) {
		return false
	} else if err == nil {
		defer unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	found, err := hashFile(f, false)
	return err == nil && found.State == want
}

// rename gives a name of a directory to another path of it that is free, and tells which.
func rename(dir int, name, to string) (string, error) {
	for n := range 1000 {
		at := numbered(to, n)
		err := unix.Renameat2(dir, name, dir, path.Base(at), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return at, canRename(err)
		}
	}
	return "", &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("%.300q and all names like it are taken", to)}
}

func (l *Local) Remove(_ context.Context, put Put) (Result, error) {
	result, err := l.removeFile(put)
	return result, pathError(err)
}

func (l *Local) removeFile(put Put) (Result, error) {
	unlock, err := l.lock()
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	dir, err := l.parent(put.Path)
	if absent(err) {
		return Result{Outcome: Done}, nil
	}
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(dir)
	base := path.Base(put.Path)
	now, err := lookIn(dir, base, false)
	if err != nil {
		return Result{}, err
	}
	if now.State != put.Expect || now.Kind != File && now.Kind != Link || !asExpected(dir, base, put.Expect) {
		return Result{Outcome: Stale}, nil // or somebody has it open for writing
	}
	if err := l.step("found"); err != nil {
		return Result{}, err
	}
	out := outName(put, State{})
	if err := unix.Renameat2(dir, base, dir, out, unix.RENAME_NOREPLACE); err != nil {
		if absent(err) {
			return Result{Outcome: Stale}, nil
		}
		return Result{}, canRename(err)
	}
	if err := l.step("removing"); err != nil {
		return Result{}, err
	}
	if !asExpected(dir, out, put.Expect) {
		if unix.Renameat2(dir, out, dir, base, unix.RENAME_NOREPLACE) == nil {
			return Result{Outcome: Stale}, nil
		}
		kept, err := rename(dir, out, put.Keep)
		return Result{Outcome: Stale, Kept: kept}, err
	}
	if err := errors.Join(unix.Unlinkat(dir, out, 0), unix.Fsync(dir)); err != nil {
		return Result{}, err
	}
	l.removeEmpty(path.Dir(put.Path))
	return Result{Outcome: Done}, nil
}

// removeEmpty removes a directory and those above it as far as they are empty.
func (l *Local) removeEmpty(at string) {
	for ; at != "."; at = path.Dir(at) {
		up, err := l.parent(at)
		if err != nil {
			return
		}
		err = unix.Unlinkat(up, path.Base(at), unix.AT_REMOVEDIR)
		unix.Close(up)
		if err != nil {
			return
		}
	}
}

func (l *Local) Aside(_ context.Context, at, as string) (string, error) {
	kept, err := l.aside(at, as)
	return kept, pathError(err)
}

func (l *Local) aside(at, as string) (string, error) {
	if path.Dir(at) != path.Dir(as) {
		return "", banger.Invalidf("%.300q is not beside %.300q", as, at)
	}
	unlock, err := l.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	dir, err := l.parent(at)
	if absent(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	now, err := lookIn(dir, path.Base(at), false)
	if err != nil || now.Kind != File && now.Kind != Link {
		return "", err
	}
	kept, err := rename(dir, path.Base(at), as)
	if absent(err) {
		return "", nil
	}
	return kept, errors.Join(err, unix.Fsync(dir))
}

// recover deals with a file that a process which has ended did not put in its place: what may be the only copy of something gets a name
// like that of a conflict, which it gives, and the rest goes.
func (l *Local) recover(dir int, name, at string) (kept string, err error) {
	unlock, err := l.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); absent(err) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	old, fresh, base, ok := parseOut(name)
	if !ok {
		return "", removeLeft(dir, name, st.Mode&unix.S_IFMT)
	}
	found, err := lookIn(dir, name, false)
	if err != nil {
		return "", err
	}
	if sum := found.Sum.short(); (found.Kind == File || found.Kind == Link) && (sum == old || sum == fresh) {
		return "", unlinkOurs(dir, name)
	}
	if kept, err = rename(dir, name, path.Join(at, conflictName(base, l.side, time.Unix(st.Mtim.Unix())))); absent(err) {
		return "", nil
	}
	return kept, err
}

// removeLeft removes what nobody writes any more: a link, which is never there without the tree's lock, and a file that is not locked.
func removeLeft(dir int, name string, kind uint32) error {
	switch kind {
	case unix.S_IFLNK:
		return unlinkOurs(dir, name)
	case unix.S_IFREG:
	default:
		return nil
	}
	f, err := openFile(dir, name)
	if err != nil { // it is gone, or not ours
		return nil
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	return unlinkOurs(dir, name)
}

// parseOut reads the name of a file that was about to change places.
func parseOut(name string) (old, fresh, base string, ok bool) {
	rest, ok := strings.CutPrefix(name, stagingOut)
	const fixed = 16 + 1 + 16 + 1 + randomLen + 1
	if !ok || len(rest) <= fixed {
		return "", "", "", false
	}
	return rest[:16], rest[17:33], rest[fixed:], true
}
