package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/proc"
	"banger/internal/statedir"
)

// mmdebstrap works as users that are subordinate to ours, and these can't pass through a state directory of mode 0700. So its
// directory is elsewhere, and a link in the staging directory, made first, names it for whoever has to clean up.
const (
	scratchDir    = "/var/tmp"
	scratchPrefix = "banger-image-"
	scratchLink   = "scratch"
)

// makeStaging makes the staging directory and mmdebstrap's.
func (m *Manager) makeStaging(staging statedir.ImageDir) (scratch string, err error) {
	if err := os.Mkdir(staging.Path, 0o700); err != nil {
		return "", err
	}
	scratch = filepath.Join(m.scratch, scratchPrefix+strings.ToLower(rand.Text()))
	if err := os.Symlink(scratch, filepath.Join(staging.Path, scratchLink)); err != nil {
		return "", err
	}
	if err := os.Mkdir(scratch, 0o711); err != nil {
		return "", err
	}
	return scratch, os.Chmod(scratch, 0o711)
}

// removeStaging removes a staging directory and what it names; a missing one is no error.
func (m *Manager) removeStaging(ctx context.Context, staging statedir.ImageDir) error {
	return errors.Join(m.removeScratch(ctx, staging), os.RemoveAll(staging.Path))
}

// removeScratch removes mmdebstrap's directory. What a killed mmdebstrap left belongs to subordinate users: only a user namespace
// with these can remove it.
func (m *Manager) removeScratch(ctx context.Context, staging statedir.ImageDir) error {
	link := filepath.Join(staging.Path, scratchLink)
	scratch, err := os.Readlink(link)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(scratch, filepath.Join(m.scratch, scratchPrefix)); !ok || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("%s leads to %s, which no build made", link, scratch)
	}
	if os.RemoveAll(scratch) != nil {
		entries, err := filepath.Glob(filepath.Join(scratch, "*"))
		if err != nil {
			return err
		}
		args := append([]string{"--unshare-helper", "rm", "-rf", "--"}, entries...)
		toolErr := proc.Run(ctx, proc.Command{Path: tool, Args: args, Dir: "/"}) // it may not remove entries themselves, but makes them empty
		if err := os.RemoveAll(scratch); err != nil {
			return errors.Join(err, toolErr)
		}
	}
	return os.Remove(link)
}
