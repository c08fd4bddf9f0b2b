package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/statedir"
)

// Grow makes the disk of a VM that does not run larger: the file gets a hole at its end, and the guest's next boot grows the file system
// into it. A disk that has the size is left alone; a growth that was cut off is completed. On error the disk is as it was.
// Errors: ErrInvalid for a smaller size; ErrCorrupt, ErrUnsupported; ErrUnavailable when the host can't hold such a file.
func Grow(home statedir.VMDir, size int64) (err error) {
	m, err := readManifest(home)
	if err != nil {
		return err
	}
	now := m.Chain[0].SizeBytes
	if size < now {
		return &banger.Error{Kind: banger.ErrInvalid, Op: "grow disk", Subject: home.Path,
			Err: fmt.Errorf("it has %s and can't shrink to %s", banger.FormatSize(now), banger.FormatSize(size))}
	}
	file, err := os.OpenFile(home.Disk(), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return damaged(home, err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() < now || info.Size() > size:
		return damaged(home, wrongSize(m.Chain[0], info))
	case info.Size() == size && size == now:
		return nil
	}
	m.Chain[0].SizeBytes = size
	if err = file.Truncate(size); err == nil {
		err = errors.Join(file.Sync(), writeManifest(home, m))
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.EFBIG) {
		err = &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("the host's file system holds no file of %s: %w", banger.FormatSize(size), err)}
	}
	if kept, readErr := readManifest(home); readErr == nil && kept.Chain[0].SizeBytes == now {
		err = errors.Join(err, file.Truncate(now)) // nobody has written behind the old end
	}
	return banger.SpaceError(err, home.Path)
}

func writeManifest(home statedir.VMDir, m manifest) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return atomicfile.Write(home.DiskManifest(), append(text, '\n'), 0o600)
}
