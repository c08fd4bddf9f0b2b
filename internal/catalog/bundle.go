package catalog

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/sparse"
)

const (
	// maxParts bounds the files of a bundle, maxWindow what its decoder remembers of its output, maxTail what may follow the end of its tar.
	maxParts  = 10_000
	maxWindow = 64 << 20
	maxTail   = 1 << 20
	// digestInName is how many digits of its digest a bundle's name has.
	digestInName = 16
	bundleEnding = ".tar.zst"
	// stagingEnding is that of bundles that are being made, which are locked.
	stagingEnding = ".bundle.staging"
)

// Part is a kind of file in a bundle.
type Part struct {
	Name     string // path in the bundle; a "*" stands for any letters within one part of it, and for any number of files, also none
	MaxBytes int64
}

// find gives the part that a name stands for.
func find(parts []Part, name string) (Part, bool) {
	for _, p := range parts {
		if ok, _ := path.Match(p.Name, name); ok && filepath.IsLocal(name) && path.Clean(name) == name && !strings.ContainsFunc(name, unusual) {
			return p, true
		}
	}
	return Part{}, false
}

// unusual are the letters that no file of a bundle has in its name.
func unusual(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/", r))
}

// Unpack writes the files of a bundle below dir, durably and with mode 0444; runs of zeros become holes. A bundle holds the parts and
// nothing else. What was written before an error stays. Errors: ErrCorrupt.
func Unpack(ctx context.Context, r io.Reader, dir string, parts []Part) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return err
	}
	defer z.Close()
	return unpack(ctx, z, dir, parts)
}

// unpack is Unpack of a bundle's tar.
func unpack(ctx context.Context, r io.Reader, dir string, parts []Part) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{ctx: ctx, root: root, parts: parts, seen: map[string]bool{}, dirs: map[string]bool{".": true}}
	if err := u.all(tar.NewReader(r)); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(r, maxTail+1)); err != nil || n > maxTail {
		return errors.Join(damaged("something follows its last file"), err)
	}
	for _, p := range parts {
		if !strings.Contains(p.Name, "*") && !u.seen[p.Name] {
			return damaged("it has no %s", p.Name)
		}
	}
	for sub := range u.dirs {
		if err := atomicfile.SyncDir(filepath.Join(dir, sub)); err != nil {
			return err
		}
	}
	return nil
}

func damaged(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}

type unpacker struct {
	ctx   context.Context
	root  *os.Root
	parts []Part
	seen  map[string]bool
	dirs  map[string]bool
}

func (u *unpacker) all(t *tar.Reader) error {
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return damaged("it can't be read: %w", err)
		}
		if err := u.one(header, t); err != nil {
			return err
		}
	}
}

func (u *unpacker) one(header *tar.Header, content io.Reader) error {
	part, ok := find(u.parts, header.Name)
	switch {
	case !ok:
		return damaged("it holds %.100q, which has no place in it", header.Name)
	case header.Typeflag != tar.TypeReg, isSparse(header):
		return damaged("%s is no ordinary file", header.Name)
	case u.seen[header.Name]:
		return damaged("it holds %s twice", header.Name)
	case len(u.seen) == maxParts:
		return damaged("it holds more than %d files", maxParts)
	case header.Size > part.MaxBytes:
		return damaged("%s has %s, more than %s", header.Name, banger.FormatSize(header.Size), banger.FormatSize(part.MaxBytes))
	}
	u.seen[header.Name] = true
	if sub := path.Dir(header.Name); !u.dirs[sub] {
		u.dirs[sub] = true
		if err := u.root.Mkdir(sub, 0o755); err != nil {
			return err
		}
	}
	return u.write(header.Name, content)
}

// isSparse tells of a file whose tar leaves out its holes: Pack makes none.
func isSparse(header *tar.Header) bool {
	for name := range header.PAXRecords {
		if strings.HasPrefix(name, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (u *unpacker) write(name string, content io.Reader) (err error) {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	source := &judged{r: content}
	if _, err := sparse.Fill(u.ctx, f, source); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return errors.Join(f.Chmod(0o444), f.Sync())
}

// judged gives the errors of reading a bundle their kind.
type judged struct{ r io.Reader }

func (j *judged) Read(p []byte) (int, error) {
	n, err := j.r.Read(p)
	if err != nil && err != io.EOF {
		err = damaged("it can't be read: %w", err)
	}
	return n, err
}

// File is a file to put into a bundle.
type File struct {
	Name string // path in the bundle
	Path string // of its content; empty: Data is
	Data []byte
}

// Pack makes a bundle of files in the directory dir, durably, and gives its entry: name, digest, size and URL. Equal files give equal
// bytes. On error nothing is left; what a crash leaves the next Pack in dir removes.
func Pack(ctx context.Context, dir, name string, files []File, report func(read int64)) (b banger.Bundle, err error) {
	if err := removeLeft(dir); err != nil {
		return b, err
	}
	staging := filepath.Join(dir, "."+name+"-"+strings.ToLower(rand.Text()[:8])+stagingEnding)
	out, err := os.OpenFile(staging, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return b, err
	}
	if err := unix.Flock(int(out.Fd()), unix.LOCK_EX); err != nil {
		return b, errors.Join(err, out.Close(), os.Remove(staging))
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			os.Remove(staging) // gone already when the rename was the last to succeed
		}
	}()
	sum := sha256.New()
	if err := pack(ctx, io.MultiWriter(out, sum), files, report); err != nil {
		return b, err
	}
	info, err := out.Stat()
	if err != nil {
		return b, err
	}
	if err := errors.Join(out.Chmod(0o644), out.Sync()); err != nil {
		return b, err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	b = banger.Bundle{Name: name, Digest: digest, SizeBytes: info.Size(), URL: name + "-" + digest[:digestInName] + bundleEnding}
	if err := os.Rename(staging, filepath.Join(dir, b.URL)); err != nil {
		return b, err
	}
	return b, atomicfile.SyncDir(dir)
}

// removeLeft removes what Packs that were cut off left: nobody has it locked.
func removeLeft(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") || !strings.HasSuffix(entry.Name(), stagingEnding) {
			continue
		}
		name := filepath.Join(dir, entry.Name())
		f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // it is gone, or not ours
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = os.Remove(name)
		}
		if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func pack(ctx context.Context, w io.Writer, files []File, report func(read int64)) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) // several would divide the input by time
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	progress := &counted{ctx: ctx, report: report}
	for _, file := range files {
		if err := packFile(t, file, progress); err != nil {
			return errors.Join(fmt.Errorf("pack %s: %w", file.Name, err), z.Close())
		}
	}
	return errors.Join(t.Close(), z.Close())
}

func packFile(t *tar.Writer, file File, progress *counted) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: file.Name, Mode: 0o644, Size: int64(len(file.Data)), ModTime: time.Unix(0, 0)}
	if file.Path == "" {
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		_, err := t.Write(file.Data)
		return err
	}
	f, err := os.Open(file.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "read", Path: file.Path, Err: errors.New("it is no regular file")}
	}
	header.Size = info.Size()
	if err := t.WriteHeader(header); err != nil {
		return err
	}
	progress.r = f
	buffer := make([]byte, copyBuffer)
	_, err = io.CopyBuffer(struct{ io.Writer }{t}, struct{ io.Reader }{progress}, buffer)
	return err
}

// counted reports how much of all files has been read.
type counted struct {
	ctx    context.Context
	r      io.Reader
	n      int64
	report func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.report(c.n)
	return n, err
}
