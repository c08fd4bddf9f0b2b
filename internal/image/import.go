package image

import (
	"cmp"
	"context"
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
	"banger/api"
	"banger/internal/oci"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// Import makes an image from what lies at the request's path, as stage "image": an OCI layout or an archive of one, an archive of
// docker save, a tar of a root file system (each also compressed), a directory with one, or an ext4 image. On error nothing is left.
// Errors: ErrInvalid for what is no image and for a bad name; ErrConflict for a name that banger builds itself and for an ext4 image
// that was not unmounted; ErrCorrupt for content that is not what its digest says; ErrUnavailable without disk space.
func (m *Manager) Import(ctx context.Context, req api.ImportRequest, progress banger.ProgressFunc) (banger.Image, error) {
	p := plan{op: "import image " + req.Name, text: "importing image " + req.Name, image: banger.Image{Name: req.Name, Boot: req.Boot, Kernel: req.Kernel},
		workSeed: req.WorkSeed}
	return m.make(ctx, p, progress, func(staging statedir.ImageDir) (*source, error) {
		o := opening{limits: m.Limits, staging: staging, report: func(n int64) { progress.Report(banger.Progress{Stage: "image", Text: p.text, Bytes: n}) }}
		if req.Rootfs {
			return openRootfs(req.Path, o)
		}
		return openSource(ctx, req.Path, o)
	})
}

// plan says what to make of a source.
type plan struct {
	op, text string       // for errors, for progress
	image    banger.Image // its name, kernel and boot kind, which may be empty: find out
	workSeed string       // path; empty: the image's own
	known    bool         // the name may be one of the definitions
}

func (p plan) validate() error {
	if err := banger.ValidateImageName(p.image.Name); err != nil {
		return err
	}
	if boot := p.image.Boot; boot != "" && boot != banger.BootAgent && boot != banger.BootSystem {
		return banger.Invalidf("boot %q: want agent or system", boot)
	}
	if known, err := definitions(); !p.known && (err != nil || known[p.image.Name].Name != "") {
		return errors.Join(err, reservedName())
	}
	return nil
}

// make makes an image of the source that open gives.
func (m *Manager) make(ctx context.Context, p plan, progress banger.ProgressFunc, open func(staging statedir.ImageDir) (*source, error)) (image banger.Image, err error) {
	defer func() {
		if err != nil {
			err = &banger.Error{Op: p.op, Err: m.spaceError(err)}
		}
	}()
	if err := p.validate(); err != nil {
		return image, err
	}
	end := progress.Begin("image", p.text)
	staging := m.newStaging(p.image.Name)
	if err := os.Mkdir(staging.Path, 0o700); err != nil {
		return image, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging.Path)) }()
	src, err := open(staging)
	if err != nil {
		return image, err
	}
	image = p.image
	image.Source, image.Config, image.CreatedAt = src.from, src.config, m.Now().UTC()
	if err := m.fill(ctx, staging, src, p.workSeed, &image); err != nil {
		return image, err
	}
	if image, err = m.publishNewest(staging, image); err != nil {
		return image, err
	}
	end()
	return image, nil
}

// fill writes what a source gives to the staging directory, unless an image with that content is here already, and sets what is known
// then: key, size, boot kind.
func (m *Manager) fill(ctx context.Context, staging statedir.ImageDir, src *source, workSeed string, image *banger.Image) (err error) {
	defer func() { err = errors.Join(err, src.close()) }()
	if src.identity != "" && workSeed == "" {
		image.Key = keyOf(*image, src.identity)
		if _, err := m.Get(image.Key); err == nil {
			return nil
		}
	}
	init := &initFinder{}
	seed, err := writeTree(ctx, image.Name, time.Unix(0, 0), init.watch(withoutRuntime(bounded(src.tree, m.Limits))), workSeed, staging)
	if err != nil {
		return err
	}
	if image.Boot == "" {
		image.Boot = init.kind()
	}
	size, content, err := contentOf(staging.Rootfs(), src.identity == "")
	if err != nil {
		return err
	}
	image.SizeBytes, image.Key = size, keyOf(*image, cmp.Or(src.identity, content)+seed)
	return src.discard()
}

// contentOf gives the size of a base and, when asked for, its digest.
func contentOf(rootfs string, digest bool) (size int64, content string, err error) {
	base, err := os.Open(rootfs)
	if err != nil {
		return 0, "", err
	}
	defer base.Close()
	info, err := base.Stat()
	if err != nil || !digest {
		return info.Size(), "", err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, base)
	return info.Size(), hex.EncodeToString(sum.Sum(nil)), err
}

// keyOf is the content key: what the base is made of, and what else VMs get from the image.
func keyOf(image banger.Image, content string) string {
	recipe, _ := json.Marshal(struct {
		Format  int
		Name    string
		Boot    banger.BootKind
		Kernel  string              `json:",omitempty"`
		Config  *banger.ImageConfig `json:",omitempty"`
		Content string
	}{format, image.Name, image.Boot, image.Kernel, image.Config, content})
	key := sha256.Sum256(recipe)
	return hex.EncodeToString(key[:])
}

// publishNewest publishes an image, or makes the one with its key the newest of its name.
func (m *Manager) publishNewest(staging statedir.ImageDir, image banger.Image) (banger.Image, error) {
	m.publishing.Lock()
	defer m.publishing.Unlock()
	same, err := m.Get(image.Key)
	switch {
	case errors.Is(err, banger.ErrNotFound):
		return image, m.publish(staging, image)
	case err != nil: // damaged: what its machines lack is made good
		return image, errors.Join(m.discard(image.Key), m.publish(staging, image))
	}
	if newest, err := m.find(same.Name); err == nil && newest.Key == same.Key {
		return same, nil
	}
	same.CreatedAt = image.CreatedAt
	return same, writeManifest(m.Dir.Image(same.Key), same)
}

// bounded ends a tree that has more than limits: of one image, whatever it comes from.
func bounded(src tree.Source, limits tree.Limits) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		entries, bytes := 0, int64(0)
		for e, err := range src {
			if err == nil {
				entries++
				bytes += e.Size
			}
			switch {
			case entries > limits.Entries:
				e, err = tree.Entry{}, tooMuch(fmt.Sprintf("more than %d entries", limits.Entries), "images.max_entries")
			case bytes > limits.Bytes:
				e, err = tree.Entry{}, tooMuch("more than "+banger.FormatSize(limits.Bytes)+" of files", "images.max_bytes")
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func tooMuch(what, key string) error {
	return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New(what), Hint: "if that is meant: " + key + " in the configuration"}
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
	tree     tree.Source
	config   *banger.ImageConfig
	from     string
	identity string // stands for the tree's content where that is known before it is read; may be empty
	closers  []func() error
	spool    string // what must go before the image is published; may be empty
}

// take makes an OCI image the source.
func (s *source) take(img *oci.Image, from string) {
	s.tree, s.config, s.identity, s.from = img.Tree, img.Config, img.Identity, from
	s.closers = append(s.closers, img.Close)
}

func imageSource(img *oci.Image, from string) *source {
	s := &source{}
	s.take(img, from)
	return s
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
		Hint: "an image is an OCI layout, an archive of docker save, a tar of a root file system, a directory with one or an ext4 image"}
}
