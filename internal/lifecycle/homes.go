package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/disk"
	"banger/internal/filesync"
	"banger/internal/guest"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// Directories keeps the homes of VMs in a state directory.
type Directories struct{ Dir statedir.Dir }

// Create makes directory, keys and disk.
func (d Directories) Create(ctx context.Context, home Home) (err error) {
	dir := d.Dir.VM(home.ID)
	if err := os.Mkdir(dir.Path, 0o700); err != nil {
		return banger.SpaceError(err, dir.Path)
	}
	defer func() {
		if err != nil {
			err = errors.Join(banger.SpaceError(err, dir.Path), d.Remove(home.ID))
		}
	}()
	keys, err := guest.GenerateKeys(home.Name)
	if err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	// All is synced at once: the file system's journal then takes it together. The names come first, as the disk's making syncs them.
	user, userErr := writeNew(dir.UserKey(), keys.UserPrivate)
	host, hostErr := writeNew(dir.HostKey(), keys.HostPrivate)
	known, knownErr := writeNew(dir.KnownHosts(), []byte(string(home.ID)+" "+keys.HostPublic+"\n"))
	var group sync.WaitGroup
	group.Go(func() { userErr = errors.Join(userErr, syncAndClose(user)) })
	group.Go(func() { hostErr = errors.Join(hostErr, syncAndClose(host)) })
	group.Go(func() { knownErr = errors.Join(knownErr, syncAndClose(known)) })
	sync, marks := filesync.OfRoot(home.Sync)
	err = disk.Create(ctx, dir, disk.Options{Sync: sync, Marks: marks,
		SizeBytes: home.DiskBytes, Seed: d.Dir.Image(home.ImageKey).Seed(), GitName: home.GitName, GitEmail: home.GitEmail, Time: time.Now(),
		Files: []tree.Entry{tree.Directory(".ssh", 0o700), tree.Literal(".ssh/authorized_keys", 0o600, []byte(keys.UserPublic+"\n"))},
	})
	group.Wait()
	if err := errors.Join(userErr, hostErr, knownErr, err); err != nil {
		return err
	}
	return atomicfile.SyncDir(d.Dir.VMs())
}

// writeNew makes a private file; it is not durable yet.
func writeNew(path string, data []byte) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(data)
	return file, err
}

// syncAndClose makes a file's content durable; nil is no file.
func syncAndClose(file *os.File) error {
	if file == nil {
		return nil
	}
	return errors.Join(file.Sync(), file.Close())
}

// Check says whether the VM's disk is as it should be.
func (d Directories) Check(id banger.VMID) error { return disk.Check(d.Dir.VM(id)) }

// Grow makes a VM's disk larger.
func (d Directories) Grow(id banger.VMID, size int64) error { return disk.Grow(d.Dir.VM(id), size) }

// Remove removes the directory with everything in it.
func (d Directories) Remove(id banger.VMID) error { return os.RemoveAll(d.Dir.VM(id).Path) }

// List gives the ids of all directories; what is not named after an id is nobody's.
func (d Directories) List() ([]banger.VMID, error) {
	entries, err := os.ReadDir(d.Dir.VMs())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []banger.VMID
	for _, entry := range entries {
		if id, err := banger.ParseVMID(entry.Name()); err == nil && entry.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
