package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/statedir"
)

// manifests remembers the manifests that were read: a list of hundreds is asked for often. One that was replaced is another file.
type manifests struct {
	mu    sync.Mutex
	known map[string]manifest // by key
}

type manifest struct {
	file  os.FileInfo
	image banger.Image
}

// read gives the image with this key. Errors: ErrNotFound; ErrCorrupt for a damaged manifest, or one whose base is not there.
func (c *manifests) read(key string, dir statedir.ImageDir) (banger.Image, error) {
	corrupt := func(err error) (banger.Image, error) {
		return banger.Image{}, &banger.Error{Kind: banger.ErrCorrupt, Op: "image", Subject: dir.Path, Err: err}
	}
	gone := func(err error) (banger.Image, error) {
		c.forget(key)
		return banger.Image{}, &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: key, Err: err}
	}
	info, err := os.Stat(dir.Manifest())
	if errors.Is(err, fs.ErrNotExist) {
		return gone(err)
	} else if err != nil {
		return corrupt(err)
	}
	c.mu.Lock()
	have, ok := c.known[key]
	c.mu.Unlock()
	if !ok || !os.SameFile(have.file, info) || !have.file.ModTime().Equal(info.ModTime()) || have.file.Size() != info.Size() {
		have = manifest{file: info}
		text, err := os.ReadFile(dir.Manifest())
		if err == nil {
			err = json.Unmarshal(text, &have.image)
		}
		if err == nil && have.image.Key != key {
			err = fmt.Errorf("its manifest is of %q", have.image.Key)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return gone(err)
		}
		if err != nil {
			return corrupt(err)
		}
		c.remember(key, have)
	}
	if have.image.Registered != nil {
		return have.image, nil // its file is looked at when it is used
	}
	if info, err := os.Stat(dir.Rootfs()); err != nil {
		if _, err := os.Stat(dir.Path); errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
			return gone(err)
		}
		return corrupt(err)
	} else if info.Size() != have.image.SizeBytes {
		return corrupt(fmt.Errorf("rootfs.ext4 has %d bytes, want %d", info.Size(), have.image.SizeBytes))
	}
	return have.image, nil
}

func (c *manifests) remember(key string, m manifest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]manifest{}
	}
	c.known[key] = m
}

func (c *manifests) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, key)
}

// writeManifest writes or replaces an image's manifest, durably.
func writeManifest(dir statedir.ImageDir, image banger.Image) error {
	text, err := json.MarshalIndent(image, "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.Write(dir.Manifest(), append(text, '\n'), 0o600)
}
