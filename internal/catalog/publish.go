package catalog

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
)

// Update is what the next index of a catalog says.
type Update struct {
	Images  []banger.CatalogImage  // each replaces the one of its name
	Kernels []banger.CatalogKernel // likewise

	WithoutImages, WithoutKernels []string // names of entries that are left out from now on

	Now      time.Time
	Lifetime time.Duration
}

// Publish writes and signs the next index of the catalog in dir, durably. Whoever reads meanwhile finds an index, the bundles that it
// names and a signature that holds. The index that is there must be signed by one of keys.
// Errors: ErrInvalid; ErrNotFound for a bundle that is not there; ErrCorrupt and ErrRefused for an index that none of keys has signed.
func Publish(dir string, keys []ed25519.PrivateKey, update Update) (banger.Catalog, error) {
	index, err := publish(dir, keys, update)
	if err != nil {
		return index, &banger.Error{Op: "publish to", Subject: dir, Err: banger.SpaceError(err, dir)}
	}
	return index, nil
}

// Check tells what would keep Publish from following the index in dir. A directory that is not there is no error.
func Check(dir string, keys []ed25519.PrivateKey) error {
	_, _, err := current(filepath.Join(dir, indexName), keys)
	if err != nil {
		return &banger.Error{Op: "publish to", Subject: dir, Err: err}
	}
	return nil
}

func publish(dir string, keys []ed25519.PrivateKey, update Update) (banger.Catalog, error) {
	if len(keys) == 0 || 2*len(keys) > maxSignatures {
		return banger.Catalog{}, banger.Invalidf("%d keys: want 1 to %d", len(keys), maxSignatures/2)
	}
	unlock, err := lock(dir)
	if err != nil {
		return banger.Catalog{}, err
	}
	defer unlock()
	path := filepath.Join(dir, indexName)
	old, index, err := current(path, keys)
	if err != nil {
		return index, err
	}
	index.Version, index.Serial = version, index.Serial+1
	index.Created, index.Expires = update.Now.UTC().Truncate(time.Second), update.Now.UTC().Add(update.Lifetime).Truncate(time.Second)
	if index.Images, err = without(index.Images, "image", update.WithoutImages, imageName); err != nil {
		return index, err
	}
	if index.Kernels, err = without(index.Kernels, "kernel", update.WithoutKernels, kernelName); err != nil {
		return index, err
	}
	index.Images = replace(index.Images, update.Images, imageName)
	index.Kernels = replace(index.Kernels, update.Kernels, kernelName)
	next, err := encodeIndex(index)
	if err != nil {
		return index, err
	}
	for _, b := range bundles(index) {
		if err := present(dir, b); err != nil {
			return index, err
		}
	}
	// The signature of the index before stays: a reader who has that one finds its signature too.
	signatures := sign(next, keys)
	if old != nil {
		signatures = append(signatures, sign(old, keys)...)
	}
	if err := atomicfile.Write(path+signatureEnding, formatSignatures(signatures), 0o644); err != nil {
		return index, err
	}
	return index, atomicfile.Write(path, next, 0o644)
}

// lock lets one publisher at a time work on a directory.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &banger.Error{Kind: banger.ErrNotFound, Err: fs.ErrNotExist, Hint: "mkdir " + dir}
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() { d.Close() }, nil
}

// current reads the index that is to be followed; without one it is empty. It may have expired.
func current(path string, keys []ed25519.PrivateKey) ([]byte, banger.Catalog, error) {
	text, err := readLocal(path, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, banger.Catalog{Images: []banger.CatalogImage{}, Kernels: []banger.CatalogKernel{}}, nil
	}
	var signatureText []byte
	if err == nil {
		signatureText, err = readLocal(path+signatureEnding, maxSignatureFile)
	}
	var signatures []signature
	if err == nil {
		signatures, err = parseSignatures(signatureText)
	}
	if err == nil {
		var public []ed25519.PublicKey
		for _, key := range keys {
			public = append(public, key.Public().(ed25519.PublicKey))
		}
		err = verify(text, signatures, public)
	}
	if errors.Is(err, banger.ErrRefused) {
		err = &banger.Error{Kind: banger.ErrRefused, Err: err, Hint: "to go on with another key, give both: --key OLD --key NEW"}
	}
	if err != nil {
		return nil, banger.Catalog{}, err
	}
	index, err := parseIndex(text)
	return text, index, err
}

func imageName(e banger.CatalogImage) string   { return e.Name }
func kernelName(e banger.CatalogKernel) string { return e.Name }

// without leaves out the entries of some names. Errors: ErrNotFound.
func without[E any](entries []E, what string, names []string, name func(E) string) ([]E, error) {
	var known []string
	for _, e := range entries {
		known = append(known, name(e))
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return entries, &banger.Error{Kind: banger.ErrNotFound, Op: what, Subject: fmt.Sprintf("%.100q", n), Hint: banger.DidYouMean(n, known)}
		}
	}
	return slices.DeleteFunc(entries, func(e E) bool { return slices.Contains(names, name(e)) }), nil
}

// replace puts new entries in place of those of the same name, in the order of names.
func replace[E any](old, next []E, name func(E) string) []E {
	all := slices.Clone(next)
	for _, e := range old {
		if !slices.ContainsFunc(next, func(n E) bool { return name(n) == name(e) }) {
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b E) int { return cmp.Compare(name(a), name(b)) })
	if all == nil {
		all = []E{}
	}
	return all
}

func bundles(index banger.Catalog) []banger.Bundle {
	var all []banger.Bundle
	for _, e := range index.Images {
		all = append(all, e.Bundle)
	}
	for _, e := range index.Kernels {
		all = append(all, e.Bundle)
	}
	return all
}

// present wants a bundle that the index names by a path to be in dir.
func present(dir string, b banger.Bundle) error {
	u, err := url.Parse(b.URL)
	if err != nil || u.IsAbs() {
		return err
	}
	local := filepath.Join(dir, filepath.FromSlash(u.Path))
	switch info, err := os.Stat(local); {
	case errors.Is(err, fs.ErrNotExist):
		return &banger.Error{Kind: banger.ErrNotFound, Op: "bundle", Subject: local, Err: fs.ErrNotExist, Hint: "publish " + b.Name + " again"}
	case err != nil:
		return err
	case info.Size() != b.SizeBytes:
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "bundle", Subject: local, Err: fmt.Errorf("it has %d bytes, want %d", info.Size(), b.SizeBytes), Hint: "publish " + b.Name + " again"}
	}
	return nil
}
