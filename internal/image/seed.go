package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4/read"
	"banger/internal/ext4/write"
	"banger/internal/hostimage"
	"banger/internal/oci"
	"banger/internal/tree"
)

// maxSeed bounds what an image's /root may hold: it is copied to the disk of every VM.
const (
	maxSeed        = 256 << 20
	maxSeedEntries = 100_000
)

// home is the directory that VMs get a copy of.
const home = "root"

// writeSeed makes the seed of a base that was just written: of its /root, or of workSeed when that is given. It gives the digest
// of the latter.
func writeSeed(ctx context.Context, rootfs, workSeed, path string) (digest string, err error) {
	base, err := os.Open(rootfs)
	if err != nil {
		return "", err
	}
	defer base.Close()
	info, err := base.Stat()
	if err != nil {
		return "", err
	}
	fsys, err := read.Open(base, info.Size())
	if err != nil {
		return "", err
	}
	return makeSeed(ctx, fsys, workSeed, path)
}

// makeSeed makes the seed of what fsys has below /root, or of workSeed when that is given: a file with a tar or an ext4 image, whose
// trees are the content of /root. It gives the digest of the latter.
func makeSeed(ctx context.Context, fsys *read.FS, workSeed, path string) (digest string, err error) {
	if workSeed != "" {
		src, done, err := openWorkSeed(ctx, workSeed)
		if err != nil {
			return "", badSeed(workSeed, err)
		}
		sum := sha256.New()
		if err = errors.Join(saveSeed(path, src, sum), done()); err == nil {
			err = trySeed(ctx, path)
		}
		if err != nil {
			return "", badSeed(workSeed, err)
		}
		return hex.EncodeToString(sum.Sum(nil)), nil
	}
	src := tree.Of()
	switch n, err := fsys.Lookup(home, true); {
	case err == nil && n.IsDir():
		src = fsys.Source(home)
	case err != nil && !errors.Is(err, banger.ErrNotFound):
		return "", err
	}
	return "", saveSeed(path, src, io.Discard)
}

func badSeed(path string, err error) error {
	return &banger.Error{Op: "work seed", Subject: path, Err: err, Hint: cmp.Or(banger.HintOf(err), "a work seed is a tar, which may be compressed, or an ext4 image")}
}

func openWorkSeed(ctx context.Context, path string) (src tree.Source, done func() error, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, hostimage.FileError(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = banger.Invalidf("it is no regular file")
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	if hostimage.Is(file) {
		file.Close()
		img, err := hostimage.Open(path)
		if err != nil {
			return nil, nil, err
		}
		return img.Source("."), func() error { return errors.Join(img.Unchanged(), img.Close()) }, nil
	}
	stream, closer, err := oci.Unpack(contextReader{ctx, file})
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return tree.FromTar(stream, defaultLimits), func() error { return errors.Join(closer(), file.Close()) }, nil
}

// contextReader reads until the context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// saveSeed writes a seed durably, and the same to copy: directories, files, links and nothing else.
func saveSeed(path string, src tree.Source, copy io.Writer) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := tree.WriteTar(io.MultiWriter(file, copy), tree.WithOwner(seedOf(src), 0, 0)); err != nil {
		return fmt.Errorf("write seed: %w", err)
	}
	return file.Sync()
}

// seedOf leaves out of /root what has no place on a disk of its own, and ends where it is too large.
func seedOf(src tree.Source) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		var bytes int64
		entries, left := 0, map[string]bool{}
		for e, err := range src {
			switch {
			case err != nil:
			case e.Path == ".", e.Kind != tree.File && e.Kind != tree.HardLink && e.Kind != tree.Dir && e.Kind != tree.Symlink, e.Kind == tree.HardLink && left[e.Link]:
				left[e.Path] = true
				continue
			case e.Size > maxSeed-bytes:
				err = banger.Invalidf("/root holds more than %s", banger.FormatSize(maxSeed))
			case entries == maxSeedEntries:
				err = banger.Invalidf("/root holds more than %d files", maxSeedEntries)
			}
			bytes += e.Size
			entries++
			e.AccessTime, e.ChangeTime = time.Time{}, time.Time{}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// trySeed finds out whether disks can be made from a tar of the user's.
func trySeed(ctx context.Context, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	trial := path + ".ext4"
	_, err = write.CreateFile(ctx, trial, write.Options{SizeBytes: 4 * maxSeed, Fit: true, JournalBlocks: -1}, tree.FromTar(file, tree.Limits{}))
	if err != nil {
		return err
	}
	return os.Remove(trial)
}
