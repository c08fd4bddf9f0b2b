package kernel

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/initrd"
	"banger/internal/statedir"
)

const (
	// initrdFormat stands for what package initrd makes of the same input: another number, other digests.
	initrdFormat = 1
	// Initrds of other guest programs are kept while they are young or among the last used: a VM may start with one yet.
	initrdKeptAge   = 24 * time.Hour
	initrdKeptCount = 3
)

// Initrd gives the path of the initrd that boots a kernel with this guest program. It is made once for the same input, durably.
// Errors: ErrNotFound for a kernel that is gone; ErrCorrupt; ErrUnavailable without the guest program or disk space.
func (m *Manager) Initrd(ctx context.Context, kernel banger.Kernel, guestBinary string) (path string, err error) {
	found, err := m.read(kernel.Name)
	if err != nil {
		return "", err
	}
	guest, err := os.Open(guestBinary)
	if err != nil {
		return "", &banger.Error{Kind: banger.ErrUnavailable, Op: "read guest program", Subject: guestBinary, Err: err,
			Hint: "banger-guest is installed beside bangerd"}
	}
	defer guest.Close()
	digest, err := m.digest(found, guest)
	if err != nil {
		return "", fmt.Errorf("read guest program: %w", err)
	}
	dir := m.Dir.Kernel(kernel.Name)
	path = dir.Initrd(digest)
	release, err := m.claim(ctx, path)
	if err != nil {
		return "", fmt.Errorf("wait for the initrd of %s: %w", kernel.Name, err)
	}
	defer release()
	now := m.Now()
	if err := os.Chtimes(path, now, now); err == nil { // it is there, and was used now
		return path, nil
	}
	if err := writeInitrd(path, dir, found, guest); err != nil {
		return "", fmt.Errorf("make the initrd of %s: %w", kernel.Name, banger.SpaceError(err, dir.Path))
	}
	return path, removeOldInitrds(dir, path, now)
}

// guestDigest is the sha256 of a guest program, as long as its file is the same.
type guestDigest struct {
	id  fileID
	sum string
}

// fileID tells a file and its content from others as far as a file system does.
type fileID struct {
	device, inode    uint64
	size             int64
	modified, status syscall.Timespec
}

// digest is the name of the initrd for this input.
func (m *Manager) digest(kernel manifest, guest *os.File) (string, error) {
	info, err := guest.Stat()
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	id := fileID{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
	m.mu.Lock()
	known := m.digests[guest.Name()]
	m.mu.Unlock()
	if known.id != id {
		hash := sha256.New()
		if _, err := io.Copy(hash, guest); err != nil {
			return "", err
		}
		if _, err := guest.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		known = guestDigest{id, hex.EncodeToString(hash.Sum(nil))}
		m.mu.Lock()
		m.digests[guest.Name()] = known
		m.mu.Unlock()
	}
	recipe, err := json.Marshal(struct {
		Format  int
		Guest   string
		Vmlinux string
		Modules []string
	}{initrdFormat, known.sum, kernel.VmlinuxSHA, kernel.BootModules})
	sum := sha256.Sum256(recipe)
	return hex.EncodeToString(sum[:]), err
}

func writeInitrd(path string, dir statedir.KernelDir, kernel manifest, guest *os.File) error {
	info, err := guest.Stat()
	if err != nil {
		return err
	}
	in := initrd.Input{Guest: initrd.Content{Reader: guest, Size: info.Size()}}
	for _, name := range kernel.BootModules {
		f, err := os.Open(bootModule(dir.BootModules(), name))
		if err != nil {
			return fmt.Errorf("%w: %w", banger.ErrCorrupt, err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		in.Modules = append(in.Modules, initrd.ModuleFile{Name: name, Content: initrd.Content{Reader: f, Size: info.Size()}})
	}
	out, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir.Path), renameio.WithStaticPermissions(0o444))
	if err != nil {
		return err
	}
	defer out.Cleanup()
	if err := initrd.Build(out, in); err != nil {
		return err
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return atomicfile.SyncDir(dir.Path)
}

// removeOldInitrds removes those that nobody used for long, but for the last few.
func removeOldInitrds(dir statedir.KernelDir, current string, now time.Time) error {
	paths, err := filepath.Glob(dir.Initrd("*"))
	if err != nil {
		return err
	}
	var others []fs.FileInfo
	for _, path := range paths {
		if info, err := os.Lstat(path); err == nil && path != current {
			others = append(others, info)
		}
	}
	slices.SortFunc(others, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	var errs []error
	for _, info := range others[min(len(others), initrdKeptCount):] {
		if now.Sub(info.ModTime()) > initrdKeptAge {
			errs = append(errs, os.Remove(filepath.Join(dir.Path, info.Name())))
		}
	}
	return errors.Join(errs...)
}
