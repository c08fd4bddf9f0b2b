package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger"
	"banger/internal/statedir"
	"banger/internal/tree"
)

const (
	maxBlobs  = 10_000
	maxConfig = 8 << 20
	maxIndex  = 8 // indexes within indexes
	platform  = "linux/amd64"
)

// layoutEntry matches the files that an OCI layout consists of.
var layoutEntry = regexp.MustCompile(`^(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})$`)

// openArchive spools an archive, which is read out of order, and opens it. One that is both is taken as an OCI layout.
func (s *source) openArchive(ctx context.Context, stream io.Reader, path string, staging statedir.ImageDir) error {
	s.spool = filepath.Join(staging.Path, "spool")
	if err := os.Mkdir(s.spool, 0o700); err != nil {
		return err
	}
	plain := filepath.Join(s.spool, "archive.tar")
	if err := spoolTo(ctx, plain, stream); err != nil {
		return err
	}
	names, err := namesIn(plain)
	if err != nil {
		return err
	}
	switch {
	case names["index.json"] && names["oci-layout"]:
		dir := filepath.Join(s.spool, "layout")
		if err := extractLayout(plain, dir); err != nil {
			return err
		}
		if err := os.Remove(plain); err != nil {
			return err
		}
		return s.openLayout(ctx, dir)
	case names["manifest.json"]:
		return s.openDockerSave(plain)
	}
	return notImage(path, "an archive without index.json and manifest.json")
}

func spoolTo(ctx context.Context, path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, maxRootfs+1))
	if err == nil && n > maxRootfs {
		err = banger.Invalidf("more than %s", banger.FormatSize(maxRootfs))
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return errors.Join(err, f.Close())
}

func namesIn(path string) (map[string]bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names := map[string]bool{}
	for e, err := range tree.FromTar(f, tree.Limits{Entries: maxBlobs, Bytes: maxRootfs}) {
		if err != nil {
			return nil, err
		}
		names[e.Path] = true
	}
	return names, nil
}

// extractLayout unpacks only what a layout has: files by names that lead nowhere else.
func extractLayout(path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return err
	}
	for e, err := range tree.FromTar(f, tree.Limits{Entries: maxBlobs, Bytes: maxRootfs}) {
		if err != nil {
			return err
		}
		if e.Kind != tree.File || e.Content == nil || !layoutEntry.MatchString(e.Path) {
			continue
		}
		out, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(e.Path)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, e.Content)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) openDockerSave(path string) error {
	opener := func() (io.ReadCloser, error) { return os.Open(path) }
	manifest, err := tarball.LoadManifest(opener)
	if err != nil {
		return banger.Invalidf("manifest.json: %w", err)
	}
	if len(manifest) != 1 {
		var tags []string
		for _, m := range manifest {
			tags = append(tags, m.RepoTags...)
		}
		return banger.Invalidf("the archive holds %d images (%.500q): save one at a time", len(manifest), tags)
	}
	img, err := tarball.Image(opener, nil)
	if err != nil {
		return banger.Invalidf("archive: %w", err)
	}
	return s.openImage(img)
}

func (s *source) openLayout(ctx context.Context, dir string) error {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return banger.Invalidf("OCI layout: %w", err)
	}
	have := map[string]bool{}
	img, err := choose(ctx, index, have, 0)
	if err != nil {
		return err
	}
	if img == nil {
		return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("no image for %s in it, but for %.500q", platform, slices.Sorted(maps.Keys(have)))}
	}
	return s.openImage(img)
}

// choose finds the one image for this platform; have collects the platforms that there are. Two are too many.
func choose(ctx context.Context, index v1.ImageIndex, have map[string]bool, depth int) (found v1.Image, err error) {
	if depth > maxIndex {
		return nil, banger.Invalidf("indexes are nested more than %d deep", maxIndex)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, banger.Invalidf("index: %w", err)
	}
	for _, d := range manifest.Manifests {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var img v1.Image
		switch {
		case d.MediaType.IsIndex():
			inner, err := index.ImageIndex(d.Digest)
			if err == nil {
				img, err = choose(ctx, inner, have, depth+1)
			}
			if err != nil {
				return nil, err
			}
		case d.MediaType.IsImage():
			if img, err = index.Image(d.Digest); err != nil {
				return nil, banger.Invalidf("image %s: %w", d.Digest, err)
			}
			cfg, err := verifiedConfig(img)
			if err != nil {
				return nil, err
			}
			p := cfg.OS + "/" + cfg.Architecture
			have[p] = true
			if p != platform {
				continue
			}
		}
		if img != nil && found != nil {
			return nil, banger.Invalidf("there are several images for %s in it", platform)
		}
		if img != nil {
			found = img
		}
	}
	return found, nil
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

// openImage takes an image's layers one after the other.
func (s *source) openImage(img v1.Image) error {
	cfg, err := verifiedConfig(img)
	if err != nil {
		return err
	}
	if got := cfg.OS + "/" + cfg.Architecture; got != platform {
		return banger.Invalidf("an image for %q, not for %s", got, platform)
	}
	layers, err := img.Layers()
	if err != nil {
		return banger.Invalidf("layers: %w", err)
	}
	if len(layers) == 0 {
		return banger.Invalidf("an image without layers")
	}
	if len(layers) != len(cfg.RootFS.DiffIDs) {
		return banger.Invalidf("%d layers, and digests for %d", len(layers), len(cfg.RootFS.DiffIDs))
	}
	var sources []tree.Source
	var read int64
	for i, layer := range layers {
		media, err := layer.MediaType()
		if err != nil || !media.IsLayer() || !media.IsDistributable() {
			return banger.Invalidf("layer %d is of type %.100q, which banger does not know (%v)", i, media, err)
		}
		sources = append(sources, layerSource(layer, cfg.RootFS.DiffIDs[i].Hex, &read, s.report))
	}
	s.tree = tree.Concat(sources...)
	s.config, s.created = configOf(cfg.Config), time.Unix(0, 0)
	return nil
}

// layerSource unpacks a layer when it is asked for and checks that its content has this digest. It adds its bytes to read
// and reports these.
func layerSource(layer v1.Layer, want string, read *int64, report func(int64)) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		content, err := layer.Uncompressed()
		if err != nil {
			yield(tree.Entry{}, banger.Invalidf("open layer %s: %w", want, err))
			return
		}
		defer content.Close()
		sum := sha256.New()
		count := &counter{r: content, n: *read, told: *read, report: report}
		defer func() { *read = count.n }()
		stream := io.TeeReader(count, sum)
		for e, err := range tree.FromLayer(stream, limits) {
			if !yield(e, err) || err != nil {
				return
			}
		}
		if err := sameDigest(stream, sum, want); err != nil {
			yield(tree.Entry{}, err)
		}
	}
}

func sameDigest(rest io.Reader, sum hash.Hash, want string) error {
	if _, err := io.Copy(io.Discard, rest); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%w: a layer has digest %s, want %s", banger.ErrCorrupt, got, want)
	}
	return nil
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
