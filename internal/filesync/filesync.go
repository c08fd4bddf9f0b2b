// Package filesync reads the files of the host's user that VMs get copies of: from the user's home only, within bounds, and never by a
// symbolic link that lies in a directory.
//
// What a guest does with them is package guestagent's; what they are in a guest's new disk is package disk's.
package filesync

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

// Limits of what one VM gets, in bytes and in files and directories. All of it is in memory for a moment.
const (
	MaxFile  = 8 << 20
	MaxAll   = 32 << 20
	MaxFiles = 2000
)

// File is a file or directory as a guest is to have it.
type File struct {
	Guest   string // "~/…", in the home of the VM's user, or "/root/…"
	Dir     bool
	Mode    uint32 // permission bits
	Content []byte // of a file
}

// Mark is what is remembered of a file to find out later whether somebody has changed it.
func Mark(mode uint32, content []byte) string {
	return fmt.Sprintf("%04o %x", mode, sha256.Sum256(content))
}

// parentMode is that of directories that are made on the way to a file.
const parentMode = 0o700

// Collected is what entries name.
type Collected struct {
	Entries  []banger.FileSync // that were read, with their places in the guest
	Files    []File            // each path once, a directory before what is in it
	Warnings []string          // what is left out and need not be there
	Failed   []error           // what is left out because it breaks a rule or can't be read
}

// Collect reads what entries name below home. Of two with one place in the guest the later one counts. asRoot says that the VM's user is
// root, whose home is /root.
func Collect(home string, entries []banger.FileSync, asRoot bool) Collected {
	c := &collector{files: map[string]File{}}
	if err := c.open(home); err != nil {
		if len(entries) > 0 {
			c.Failed = append(c.Failed, fmt.Errorf("sync: %w", err))
		}
		return c.Collected
	}
	defer unix.Close(c.home)
	for _, entry := range entries {
		c.entry(entry, asRoot)
	}
	for _, f := range c.files {
		c.Files = append(c.Files, f)
	}
	slices.SortFunc(c.Files, func(a, b File) int { return strings.Compare(a.Guest, b.Guest) })
	return c.Collected
}

type collector struct {
	Collected
	root  string // the home, without symbolic links
	named string // the same as entries may name it
	home  int
	files map[string]File // by Guest
	bytes int64
}

func (c *collector) open(home string) (err error) {
	c.named = home
	if c.root, err = filepath.EvalSymlinks(home); err != nil {
		return err
	}
	c.home, err = unix.Open(c.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

// entry reads one entry, all of it or nothing.
func (c *collector) entry(f banger.FileSync, asRoot bool) {
	before, size := len(c.Warnings), c.bytes
	found := map[string]File{}
	guest, err := c.read(f, asRoot, found)
	if err == nil {
		err = c.add(found)
	}
	switch {
	case err == nil:
		c.Entries = append(c.Entries, banger.FileSync{Host: f.Host, Guest: guest, Mode: f.Mode})
		return
	case errors.Is(err, fs.ErrNotExist):
		c.Warnings = append(c.Warnings[:before], fmt.Sprintf("%s is not there: the VM gets none", f.Host))
	default:
		c.Warnings = c.Warnings[:before]
		c.Failed = append(c.Failed, &banger.Error{Kind: kindOf(err), Op: "sync", Subject: f.Host, Err: err, Hint: banger.HintOf(err)})
	}
	c.bytes = size
}

func kindOf(err error) error {
	switch {
	case banger.KindName(err) != "internal":
		return banger.KindByName(banger.KindName(err))
	case errors.Is(err, fs.ErrPermission):
		return banger.ErrRefused
	}
	return banger.ErrUnavailable
}

// read reads what an entry names, and gives its place in the guest.
func (c *collector) read(f banger.FileSync, asRoot bool, found map[string]File) (guest string, err error) {
	host, guest, err := f.Paths(c.named)
	if err != nil {
		return "", err
	}
	if below, ok := strings.CutPrefix(guest, "~/"); ok && asRoot {
		guest = "/root/" + below
	}
	// A link may lead to another place of the home, as those of dotfiles do.
	real, err := filepath.EvalSymlinks(filepath.Join(c.root, host))
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(c.root, real)
	if err != nil || !filepath.IsLocal(rel) || rel == "." {
		return "", &banger.Error{Kind: banger.ErrRefused, Err: errors.New("it is a symbolic link to a place that is not in your home"), Hint: "put a copy into your home, and name that"}
	}
	w := &walk{collector: c, found: found}
	if err := w.at(rel, guest, f.Bits()); err != nil {
		return "", err
	}
	for dir := path.Dir(guest); dir != "~" && dir != "/root"; dir = path.Dir(dir) {
		found[dir] = File{Guest: dir, Dir: true, Mode: parentMode}
	}
	return guest, nil
}

// add takes what an entry has, unless a file of one is a directory of another.
func (c *collector) add(found map[string]File) error {
	more := 0
	for name, f := range found {
		old, ok := c.files[name]
		if ok && old.Dir != f.Dir {
			return banger.Invalidf("%s would be a file and a directory in the VM", name)
		}
		if !ok {
			more++
		}
	}
	if len(c.files)+more > MaxFiles {
		return banger.Invalidf("there are more than %d files and directories in all", MaxFiles)
	}
	for name, f := range found {
		if old, ok := c.files[name]; ok && f.Dir && f.Mode == parentMode {
			f = old
		}
		c.files[name] = f
	}
	return nil
}

type walk struct {
	*collector
	found map[string]File
}

// at reads a file or directory at a path below the home. mode is that of a file that is named by itself; 0: its own.
func (w *walk) at(rel, guest string, mode uint32) error {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(w.home, rel, &how)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		fd, err = unix.Openat2(w.home, rel, &how)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: "~/" + rel, Err: err}
	}
	f := os.NewFile(uintptr(fd), "~/"+rel)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch own := uint32(info.Mode().Perm()); {
	case info.IsDir():
		w.found[guest] = File{Guest: guest, Dir: true, Mode: own}
		return w.below(f, rel, guest)
	case !info.Mode().IsRegular():
		return banger.Invalidf("~/%s is no file and no directory", rel)
	case mode == 0:
		mode = own
	}
	content, err := w.content(f)
	if err == nil {
		w.found[guest] = File{Guest: guest, Mode: mode, Content: content}
	}
	return err
}

func (w *walk) content(f *os.File) ([]byte, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	w.bytes += n
	switch {
	case n > MaxFile:
		return nil, banger.Invalidf("%s has more than %s", f.Name(), banger.FormatSize(MaxFile))
	case w.bytes > MaxAll:
		return nil, banger.Invalidf("all files that are synced have more than %s", banger.FormatSize(MaxAll))
	}
	return b.Bytes(), nil
}

func (w *walk) below(dir *os.File, rel, guest string) error {
	entries, err := dir.ReadDir(MaxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(entries) > MaxFiles || len(w.found) > MaxFiles {
		return banger.Invalidf("it has more than %d files and directories", MaxFiles)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, entry := range entries {
		at := path.Join(rel, entry.Name())
		if !entry.IsDir() && !entry.Type().IsRegular() {
			w.leave(at, entry.Type())
			continue
		}
		err := w.at(at, path.Join(guest, entry.Name()), 0)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went away
		case errors.Is(err, unix.ELOOP):
			w.leave(at, fs.ModeSymlink)
		case err != nil:
			return err
		}
	}
	return nil
}

// maxWarnings bounds what is told of one VM's files.
const maxWarnings = 50

func (w *walk) leave(at string, kind fs.FileMode) {
	what := "neither a file nor a directory"
	if kind == fs.ModeSymlink {
		what = "a symbolic link in a directory"
	}
	if len(w.Warnings) < maxWarnings {
		w.Warnings = append(w.Warnings, fmt.Sprintf("~/%s is left out: it is %s", at, what))
	}
}

// Source is the files as they go to a guest's agent: those of the user's home below "~", others below "root".
func Source(files []File) tree.Source {
	var entries []tree.Entry
	for _, f := range files {
		entries = append(entries, f.entry(strings.TrimPrefix(f.Guest, "/")))
	}
	return tree.Of(entries...)
}

// OfRoot gives the entries that lie in /root, by their paths below it, and the marks of their files by path.
func OfRoot(files []File) (entries []tree.Entry, marks map[string]string) {
	marks = map[string]string{}
	for _, f := range files {
		name, ok := strings.CutPrefix(f.Guest, "/root/")
		if !ok {
			continue
		}
		entries = append(entries, f.entry(name))
		if !f.Dir {
			marks[f.Guest] = Mark(f.Mode, f.Content)
		}
	}
	return entries, marks
}

func (f File) entry(name string) tree.Entry {
	if f.Dir {
		return tree.Directory(name, f.Mode)
	}
	return tree.Literal(name, f.Mode, f.Content)
}
