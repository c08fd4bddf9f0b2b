package read

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"banger"
	"banger/internal/ext4"
)

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
	_ fs.ReadFileFS = (*FS)(nil)
)

// find opens a path as io/fs spells it.
func (f *FS) find(op, name string, follow bool) (*Node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n, err := f.lookup(name, follow)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// Open implements fs.FS. Symbolic links are followed inside the file system, absolute ones from its root. Files are also
// io.ReaderAt and io.Seeker; FileInfo.Sys is a *Stat.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	opened := &file{info: info{base(name), n.Stat()}, path: name, n: n}
	if n.IsDir() {
		return &dirFile{file: opened}, nil
	}
	return &regularFile{opened, io.NewSectionReader(n, 0, n.Size())}, nil
}

// ReadDir implements fs.ReadDirFS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	return n.dirEntries(name)
}

func (n *Node) dirEntries(name string) (list []fs.DirEntry, err error) {
	for d, err := range n.Entries() {
		if err != nil {
			return list, &fs.PathError{Op: "readdir", Path: name, Err: err}
		}
		e := &dirEntry{n.fs, d, typeOfDirent[d.Type]}
		if d.Type == 0 || int(d.Type) >= len(typeOfDirent) {
			child, err := n.fs.Node(d.Ino)
			if err != nil {
				return list, &fs.PathError{Op: "readdir", Path: name, Err: err}
			}
			e.mode = FileMode(child.raw.Mode()).Type()
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return list, nil
}

// Stat implements fs.StatFS: it follows links. Lstat does not.
func (f *FS) Stat(name string) (fs.FileInfo, error) { return f.stat("stat", name, true) }

// Lstat implements fs.ReadLinkFS.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.stat("lstat", name, false) }

func (f *FS) stat(op, name string, follow bool) (fs.FileInfo, error) {
	n, err := f.find(op, name, follow)
	if err != nil {
		return nil, err
	}
	return &info{base(name), n.Stat()}, nil
}

// ReadLink implements fs.ReadLinkFS.
func (f *FS) ReadLink(name string) (string, error) {
	n, err := f.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	text, err := n.Link()
	if errors.Is(err, banger.ErrInvalid) {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return text, nil
}

// maxReadFile bounds what ReadFile holds in memory: a sparse file may claim any size.
const maxReadFile = 1 << 30

// ReadFile implements fs.ReadFileFS for files of up to 1 GiB.
func (f *FS) ReadFile(name string) ([]byte, error) {
	n, err := f.find("read", name, true)
	if err != nil {
		return nil, err
	}
	switch {
	case n.IsDir():
		err = banger.Invalidf("it is a directory")
	case n.Size() > maxReadFile:
		err = unsupported("%d bytes at once", n.Size())
	}
	var data []byte
	if err == nil {
		data = make([]byte, n.Size())
		_, err = io.ReadFull(io.NewSectionReader(n, 0, n.Size()), data)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

// FileMode turns a mode of stat(2) into Go's.
func FileMode(mode uint16) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, bit := range []struct {
		raw uint16
		fs  fs.FileMode
	}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}} {
		if mode&bit.raw != 0 {
			m |= bit.fs
		}
	}
	if t := ext4.DirentType(mode); t != 0 {
		return m | typeOfDirent[t]
	}
	return m | fs.ModeIrregular
}

var typeOfDirent = [256]fs.FileMode{ext4.DirentDir: fs.ModeDir, ext4.DirentChar: fs.ModeDevice | fs.ModeCharDevice,
	ext4.DirentBlock: fs.ModeDevice, ext4.DirentFIFO: fs.ModeNamedPipe, ext4.DirentSocket: fs.ModeSocket, ext4.DirentSymlink: fs.ModeSymlink}

type info struct {
	name string
	stat Stat
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.stat.Size }
func (i *info) Mode() fs.FileMode  { return FileMode(i.stat.Mode) }
func (i *info) ModTime() time.Time { return i.stat.Mod }
func (i *info) IsDir() bool        { return i.Mode().IsDir() }
func (i *info) Sys() any           { return &i.stat }

type dirEntry struct {
	fs     *FS
	dirent Dirent
	mode   fs.FileMode
}

func (e *dirEntry) Name() string      { return e.dirent.Name }
func (e *dirEntry) IsDir() bool       { return e.mode.IsDir() }
func (e *dirEntry) Type() fs.FileMode { return e.mode }
func (e *dirEntry) String() string    { return fs.FormatDirEntry(e) }

func (e *dirEntry) Info() (fs.FileInfo, error) {
	n, err := e.fs.Node(e.dirent.Ino)
	if err != nil {
		return nil, err
	}
	return &info{e.dirent.Name, n.Stat()}, nil
}

type file struct {
	info   info
	path   string
	n      *Node
	closed bool
}

func (f *file) Stat() (fs.FileInfo, error) { return &f.info, nil }

func (f *file) Close() error {
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}

type regularFile struct {
	*file
	*io.SectionReader
}

type dirFile struct {
	*file
	list []fs.DirEntry
	read bool
}

func (d *dirFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.path, Err: banger.Invalidf("it is a directory")}
}

// ReadDir implements fs.ReadDirFile.
func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		list, err := d.n.dirEntries(d.path)
		if err != nil {
			return nil, err
		}
		d.list, d.read = list, true
	}
	if n <= 0 {
		n = len(d.list)
	} else if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	part := d.list[:n:n]
	d.list = d.list[n:]
	return part, nil
}

func base(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[i+1:]
		}
	}
	return name
}
