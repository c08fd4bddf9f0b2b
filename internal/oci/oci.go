// Package oci reads container images, out of layouts, archives and registries, as the files of a root file system.
//
// layout.go and docker.go find an image on this computer, registry.go one elsewhere; blobs.go keeps what has been downloaded; layer.go
// unpacks layers one after the other and checks them. Everything that they read is somebody else's: sizes are bounded and digests are
// checked before the last entry of a layer has been given.
package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/tree"
)

const (
	maxBlobs  = 10_000
	maxLayers = 1000
	maxConfig = 8 << 20
	maxIndex  = 8 // indexes within indexes

	// Platform is that of the images that are taken.
	Platform = "linux/amd64"
)

// Options say how an image is read.
type Options struct {
	Limits tree.Limits             // of each layer's tar
	Spool  string                  // a directory for files without a name, of layers that are unpacked before their turn
	Report func(done, total int64) // how many bytes of the layers, as they are stored, have been read; total is 0 when it is not known
}

// Image is an image that has been found. It must be closed.
type Image struct {
	Tree     tree.Source // its layers one after the other; it may be ranged over once
	Config   *banger.ImageConfig
	Identity string // stands for the content of the layers, before they are read

	closers []func() error
	forget  func() (bool, error)
}

// Close ends the use of the image's files.
func (i *Image) Close() error {
	var errs []error
	for _, c := range i.closers {
		errs = append(errs, c())
	}
	i.closers = nil
	return errors.Join(errs...)
}

// Forget removes what the image took from the cache, and tells whether there was anything: then its content may be the cache's fault.
func (i *Image) Forget() (bool, error) {
	if i.forget == nil {
		return false, nil
	}
	return i.forget()
}

// verifiedConfig reads an image's configuration and checks its digest.
func verifiedConfig(img v1.Image) (*v1.ConfigFile, error) {
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, banger.Invalidf("configuration: %w", err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, banger.Invalidf("manifest: %w", err)
	}
	sum := sha256.Sum256(raw)
	if got := hex.EncodeToString(sum[:]); len(raw) > maxConfig || manifest.Config.Digest.Hex != got {
		return nil, fmt.Errorf("%w: the configuration has digest %s, want %s", banger.ErrCorrupt, got, manifest.Config.Digest.Hex)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, banger.Invalidf("configuration: %w", err)
	}
	return cfg, nil
}

// openImage takes an image by its manifest; open gives the layers as they are stored.
func openImage(ctx context.Context, img v1.Image, opts Options, open func(v1.Descriptor) layer) (*Image, error) {
	cfg, err := verifiedConfig(img)
	if err != nil {
		return nil, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, banger.Invalidf("manifest: %w", err)
	}
	var layers []layer
	for i, d := range manifest.Layers {
		if !d.MediaType.IsLayer() || !d.MediaType.IsDistributable() {
			return nil, banger.Invalidf("layer %d is of type %.100q, which banger does not know", i, d.MediaType)
		}
		if d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != sha256.Size*2 {
			return nil, banger.Invalidf("layer %d has no sha256 digest", i)
		}
		if d.Size < 0 || d.Size > opts.Limits.Bytes {
			return nil, banger.Invalidf("layer %d has %d bytes", i, d.Size)
		}
		l := open(d)
		l.name = d.Digest.String()
		layers = append(layers, l)
	}
	return openLayers(ctx, cfg, opts, layers)
}

// openLayers takes an image by its configuration and its layers, the lowest first.
func openLayers(ctx context.Context, cfg *v1.ConfigFile, opts Options, layers []layer) (*Image, error) {
	if got := cfg.OS + "/" + cfg.Architecture; got != Platform {
		return nil, banger.Invalidf("an image for %q, not for %s", got, Platform)
	}
	switch {
	case len(layers) == 0:
		return nil, banger.Invalidf("an image without layers")
	case len(layers) > maxLayers:
		return nil, banger.Invalidf("an image of %d layers: at most %d", len(layers), maxLayers)
	case len(layers) != len(cfg.RootFS.DiffIDs):
		return nil, banger.Invalidf("%d layers, and digests for %d", len(layers), len(cfg.RootFS.DiffIDs))
	}
	identity := sha256.New()
	for i, id := range cfg.RootFS.DiffIDs {
		layers[i].diffID = id.Hex
		fmt.Fprintln(identity, id)
	}
	return &Image{Tree: merged(ctx, layers, opts), Config: configOf(cfg.Config), Identity: hex.EncodeToString(identity.Sum(nil))}, nil
}

func configOf(c v1.Config) *banger.ImageConfig {
	out := &banger.ImageConfig{WorkingDir: c.WorkingDir, User: c.User, Entrypoint: c.Entrypoint, Cmd: c.Cmd, ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts))}
	for _, assignment := range c.Env {
		name, value, ok := strings.Cut(assignment, "=")
		if ok && banger.ValidateEnv(name, value) == nil {
			out.Env = append(out.Env, assignment)
		}
	}
	return out
}

// reportEvery is how many bytes pass between two reports.
const reportEvery = 1 << 20

// counter reports how much has been read of several streams.
type counter struct {
	total  int64
	report func(done, total int64)

	mu         sync.Mutex
	done, told int64
}

// countedReader is one of the streams.
type countedReader struct {
	io.ReadCloser
	c *counter
}

func (c *counter) over(r io.ReadCloser) io.ReadCloser { return countedReader{r, c} }

func (r countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.c.add(int64(n))
	return n, err
}

func (c *counter) add(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done += n; c.done-c.told >= reportEvery {
		c.told = c.done
		c.report(c.done, c.total)
	}
}
