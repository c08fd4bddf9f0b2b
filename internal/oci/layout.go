package oci

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"banger"
	"banger/internal/tree"
)

// layoutEntry matches the files that an OCI layout consists of.
var layoutEntry = regexp.MustCompile(`^(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})$`)

// archiveEntry matches what OCI layouts and archives of docker save begin with, and root file systems do not.
var archiveEntry = regexp.MustCompile(`^(\./)?(oci-layout|index\.json|manifest\.json|repositories|blobs/.*|sha256:[0-9a-f]{64}|[0-9a-f]{64}(/.*|\.json|\.tar|\.tar\.gz)?)$`)

// IsArchive tells by the name of a tar's first entry whether it is an archive of images, rather than a root file system.
func IsArchive(first string) bool { return archiveEntry.MatchString(first) }

// OpenArchive takes the image of an archive, an OCI layout or what docker save makes; of one that is both, the layout. The archive is
// spooled into the directory spool, which it makes and which must stay until the image is closed; then, as on error, it is the caller's to remove.
// Errors: those of [OpenLayout].
func OpenArchive(ctx context.Context, stream io.Reader, spool string, opts Options) (*Image, error) {
	if err := os.Mkdir(spool, 0o700); err != nil {
		return nil, err
	}
	plain := filepath.Join(spool, "archive.tar")
	if err := spoolTo(ctx, plain, stream, opts.Limits.Bytes); err != nil {
		return nil, err
	}
	names, err := namesIn(plain)
	if err != nil {
		return nil, err
	}
	switch {
	case names["index.json"] && names["oci-layout"]:
		dir := filepath.Join(spool, "layout")
		if err := extractLayout(plain, dir); err != nil {
			return nil, err
		}
		if err := os.Remove(plain); err != nil {
			return nil, err
		}
		return OpenLayout(ctx, dir, opts)
	case names["manifest.json"]:
		return openDockerSave(ctx, plain, opts)
	}
	return nil, banger.Invalidf("an archive without index.json and manifest.json")
}

func spoolTo(ctx context.Context, path string, r io.Reader, most int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, most+1))
	if err == nil && n > most {
		err = banger.Invalidf("more than %s", banger.FormatSize(most))
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
	for e, err := range tree.FromTar(f, tree.Limits{Entries: maxBlobs, Bytes: math.MaxInt64}) {
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
	for e, err := range tree.FromTar(f, tree.Limits{Entries: maxBlobs, Bytes: math.MaxInt64}) {
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

// OpenLayout takes the image of an OCI layout
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md).
// Errors: ErrInvalid for what is no image, or none for this platform, or several; ErrCorrupt for a configuration with another digest.
func OpenLayout(ctx context.Context, dir string, opts Options) (*Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, banger.Invalidf("OCI layout: %w", err)
	}
	have := map[string]bool{}
	img, err := choose(ctx, index, have, 0)
	if err == nil && img == nil {
		err = wrongPlatform(have)
	}
	if err != nil {
		return nil, err
	}
	count := &counter{report: opts.Report}
	return openImage(ctx, img, opts, func(d v1.Descriptor) layer {
		return layer{open: func(context.Context) (io.ReadCloser, error) {
			blob, err := layout.Path(dir).Blob(d.Digest)
			if err != nil {
				return nil, banger.Invalidf("%w", err)
			}
			return count.over(blob), nil
		}}
	})
}

func wrongPlatform(have map[string]bool) error {
	if len(have) == 0 {
		return banger.Invalidf("there is no image in it")
	}
	return banger.Invalidf("there is no image for %s in it, but for %.500s", Platform, strings.Join(slices.Sorted(maps.Keys(have)), ", "))
}

// choose finds the image for this platform; have collects the platforms that there are. Of several in an inner index the first is
// taken; several in the outermost are too many.
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
		img, err := entryOf(ctx, index, d, have, depth)
		switch {
		case err != nil:
			return nil, err
		case img == nil:
		case depth > 0:
			return img, nil
		case found != nil:
			return nil, banger.Invalidf("there are several images for %s in it", Platform)
		default:
			found = img
		}
	}
	return found, nil
}

// entryOf gives the image that an entry of an index stands for, nil when it is for another Platform.
func entryOf(ctx context.Context, index v1.ImageIndex, d v1.Descriptor, have map[string]bool, depth int) (v1.Image, error) {
	switch {
	case d.MediaType.IsIndex():
		inner, err := index.ImageIndex(d.Digest)
		if err != nil {
			return nil, err
		}
		return choose(ctx, inner, have, depth+1)
	case !d.MediaType.IsImage():
		return nil, nil
	}
	if d.Platform != nil && d.Platform.OS != "" {
		if p := d.Platform.OS + "/" + d.Platform.Architecture; p != Platform {
			have[p] = true
			return nil, nil
		}
	}
	img, err := index.Image(d.Digest)
	if err != nil {
		return nil, banger.Invalidf("image %s: %w", d.Digest, err)
	}
	cfg, err := verifiedConfig(img)
	if err != nil {
		return nil, err
	}
	if p := cfg.OS + "/" + cfg.Architecture; p != Platform {
		have[p] = true
		return nil, nil
	}
	return img, nil
}
