package image

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"banger"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// Import makes an image from what lies at path, as stage "image": an OCI layout or an archive of one, an archive of
// docker save, a tar of a root file system (each also compressed), or a directory with one. An empty boot finds out whether
// the image has an init of its own. On error nothing is left.
// Errors: ErrInvalid for what is no image and for a bad name; ErrConflict for a name that banger builds itself; ErrCorrupt for
// content that is not what its digest says; ErrUnavailable without disk space.
func (m *Manager) Import(ctx context.Context, name, path string, boot banger.BootKind, progress banger.ProgressFunc) (banger.Image, error) {
	return m.make(ctx, job{"import image " + name, "importing image " + name, name, boot}, progress, func(staging statedir.ImageDir, report func(int64)) (*source, error) {
		return openSource(ctx, path, staging, report)
	})
}

// job is one image to make.
type job struct {
	op, text string // for errors, for progress
	name     string
	boot     banger.BootKind // empty: find out
}

// make makes an image of the source that open gives.
func (m *Manager) make(ctx context.Context, j job, progress banger.ProgressFunc, open func(staging statedir.ImageDir, report func(int64)) (*source, error)) (image banger.Image, err error) {
	name, boot := j.name, j.boot
	defer func() {
		if err != nil {
			err = &banger.Error{Op: j.op, Err: banger.SpaceError(err, m.Dir.Images())}
		}
	}()
	if err := banger.ValidateImageName(name); err != nil {
		return image, err
	}
	if boot != "" && boot != banger.BootAgent && boot != banger.BootSystem {
		return image, banger.Invalidf("boot %q: want agent or system", boot)
	}
	if known, err := definitions(); err != nil || known[name].Name != "" {
		return image, errors.Join(err, &banger.Error{Kind: banger.ErrConflict, Err: errors.New("banger builds the image of that name itself"), Hint: "choose another name"})
	}
	end := progress.Begin("image", j.text)
	staging := m.Dir.ImageStaging(name + "-" + strings.ToLower(rand.Text()[:8]))
	if err := os.Mkdir(staging.Path, 0o700); err != nil {
		return image, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging.Path)) }()
	src, err := open(staging, func(n int64) { progress.Report(banger.Progress{Stage: "image", Text: j.text, Bytes: n}) })
	if err != nil {
		return image, err
	}
	init := &initFinder{}
	err = writeTree(ctx, name, src.created, init.watch(withoutRuntime(src.tree)), staging)
	if err := errors.Join(err, src.close()); err != nil {
		return image, err
	}
	image = banger.Image{Name: name, Boot: boot, Source: src.from, Config: src.config, CreatedAt: m.Now().UTC()}
	if boot == "" {
		image.Boot = init.kind()
	}
	if image.SizeBytes, image.Key, err = m.importKey(staging, image); err != nil {
		return image, err
	}
	if err := src.discard(); err != nil {
		return image, err
	}
	if same, err := m.Get(image.Key); err == nil {
		end()
		return same, nil
	}
	if err := m.publish(staging, image); err != nil {
		return image, err
	}
	end()
	return image, nil
}

// importKey is the content key: the bytes of the base, and what else VMs get from the image.
func (m *Manager) importKey(staging statedir.ImageDir, image banger.Image) (size int64, key string, err error) {
	base, err := os.Open(staging.Rootfs())
	if err != nil {
		return 0, "", err
	}
	defer base.Close()
	sum := sha256.New()
	if size, err = io.Copy(sum, base); err != nil {
		return 0, "", err
	}
	recipe, err := json.Marshal(struct {
		Format  int
		Name    string
		Boot    banger.BootKind
		Config  *banger.ImageConfig
		Content string
	}{format, image.Name, image.Boot, image.Config, hex.EncodeToString(sum.Sum(nil))})
	if err != nil {
		return 0, "", err
	}
	whole := sha256.Sum256(recipe)
	return size, hex.EncodeToString(whole[:]), nil
}

// withoutRuntime leaves out what the guest's kernel makes, an id that each machine has to itself, and times that tell when
// the files were read and copied here.
func withoutRuntime(src tree.Source) tree.Source {
	return tree.Filter(src, func(e *tree.Entry) bool {
		e.AccessTime, e.ChangeTime = time.Time{}, time.Time{}
		if e.Path == "etc/machine-id" && e.Kind == tree.File {
			e.Size, e.Content = 0, nil
		}
		for _, dir := range []string{"dev/", "proc/", "sys/"} {
			if strings.HasPrefix(e.Path, dir) {
				return false
			}
		}
		return true
	})
}

// initFinder looks for an init among the entries that go by.
type initFinder struct{ found map[string]bool }

func (f *initFinder) watch(src tree.Source) tree.Source {
	f.found = map[string]bool{}
	return tree.Filter(src, func(e *tree.Entry) bool {
		switch e.Path {
		case "sbin/init", "usr/sbin/init", "lib/systemd/systemd", "usr/lib/systemd/systemd":
			f.found[e.Path] = e.Kind != tree.Delete
		}
		return true
	})
}

// kind takes systemd alone for an init that is worth starting: that of busybox needs an inittab that containers do not have.
func (f *initFinder) kind() banger.BootKind {
	if f.found["lib/systemd/systemd"] || f.found["usr/lib/systemd/systemd"] {
		return banger.BootSystem
	}
	return banger.BootAgent
}

// source is an image's tree before it is written.
type source struct {
	tree    tree.Source
	config  *banger.ImageConfig
	created time.Time
	from    string
	closers []func() error
	spool   string // what must go before the image is published; may be empty
	report  func(read int64)
}

func (s *source) close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c())
	}
	s.closers = nil
	return errors.Join(errs...)
}

func (s *source) discard() error {
	if s.spool == "" {
		return nil
	}
	return os.RemoveAll(s.spool)
}

// notImage is the error for what is no image.
func notImage(path, what string) error {
	return &banger.Error{Kind: banger.ErrInvalid, Subject: path, Err: fmt.Errorf("it is %s", what),
		Hint: "an image is an OCI layout, an archive of docker save, a tar of a root file system or a directory with one"}
}
