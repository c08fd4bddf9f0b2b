package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/debian"
)

const (
	// metaPackage depends on the newest kernel package for virtual machines.
	metaPackage   = "linux-image-cloud-amd64"
	kernelPackage = "linux-image-" // what the name of a kernel's package begins with
	// debianRelease is where the kernel comes from without apt. With apt it is the host's release.
	debianRelease = "bookworm"

	downloading = "downloading" // detail of the progress
)

// tellFunc reports what is done right now, in bytes; total is 0 when it is unknown.
type tellFunc = func(detail string, done, total int64)

// download gets the kernel's package into dir, where only it is afterwards: by apt if that is there and knows it, else from
// Debian's archive.
// Errors: ErrUnavailable; ErrRefused and ErrCorrupt for an archive that is not what its keys signed. They name both ways.
func (m *Manager) download(ctx context.Context, dir string, tell tellFunc) (path string, err error) {
	path, aptErr := downloadBy(ctx, byApt, dir, tell)
	if aptErr == nil || ctx.Err() != nil {
		return path, aptErr
	}
	path, err = downloadBy(ctx, m.byArchive, dir, tell)
	if err == nil || ctx.Err() != nil {
		return path, err
	}
	hint := cmp.Or(banger.HintOf(err), "look at the network, or set debian.mirror in the configuration (or BANGER_MIRROR) to the URL of another mirror")
	if apt := banger.HintOf(aptErr); apt != "" {
		hint = apt + "; or " + hint
	}
	return "", &banger.Error{Err: fmt.Errorf("apt: %v; archive: %w", aptErr, err), Hint: hint} // the archive's failure decides the kind
}

// downloadBy lets get download a package in a directory of its own, and moves the package alone to dir.
func downloadBy(ctx context.Context, get func(ctx context.Context, dir string, tell tellFunc) (string, error), dir string, tell tellFunc) (path string, err error) {
	work := filepath.Join(dir, "download")
	if err := os.Mkdir(work, 0o700); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	got, err := get(ctx, work, tell)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "linux-image.deb")
	return path, os.Rename(got, path)
}

// byArchive reads Debian's archive itself.
func (m *Manager) byArchive(ctx context.Context, dir string, tell tellFunc) (path string, err error) {
	archive, err := m.archive()
	if err != nil {
		return "", err
	}
	isKernel := func(name string) bool { return strings.HasPrefix(name, kernelPackage) }
	found, err := archive.Find(ctx, dir, isKernel, func(done, total int64) { tell("reading Debian's package lists", done, total) })
	if err != nil {
		return "", err
	}
	pkg, err := kernelAmong(found)
	if err != nil {
		return "", &banger.Error{Kind: banger.ErrUnavailable, Err: err, Hint: "the mirror is not whole: try again later, or take another"}
	}
	path = filepath.Join(dir, "package")
	return path, archive.Download(ctx, pkg, path, func(done int64) { tell(downloading, done, pkg.Size) })
}

// archive is Debian's, as the user has set it. Security updates are beside the main archive; a mirror of one's own may lack them.
func (m *Manager) archive() (*debian.Archive, error) {
	mirror := strings.TrimRight(cmp.Or(m.Mirror, debian.DebianMirror), "/")
	archive := &debian.Archive{Now: m.Now, Suites: []debian.Suite{
		{Mirror: mirror, Name: debianRelease, Component: "main"},
		{Mirror: mirror + "-security", Name: debianRelease + "-security", Component: "main", Optional: m.Mirror != ""},
	}}
	var err error
	if archive.HTTP, err = debian.NewClient(m.Proxy); err != nil {
		return nil, err
	}
	if m.Keyring != "" {
		archive.Keys, err = debian.ReadKeys(m.Keyring)
	} else {
		archive.Keys, err = debian.DebianKeys()
	}
	return archive, err
}

// kernelAmong gives the package that the newest meta package stands for.
func kernelAmong(found []debian.Candidate) (debian.Candidate, error) {
	meta, ok := debian.Newest(found, metaPackage, "")
	if !ok {
		return meta, fmt.Errorf("there is no package %s", metaPackage)
	}
	name, version, ok := kernelOf(meta.Depends)
	if !ok {
		return meta, fmt.Errorf("package %s %s depends on no kernel", metaPackage, meta.Version)
	}
	pkg, ok := debian.Newest(found, name, version)
	if !ok {
		return pkg, fmt.Errorf("there is no package %s %s, which %s %s depends on", name, version, metaPackage, meta.Version)
	}
	return pkg, nil
}

// kernelOf finds the kernel among what a meta package depends on. An empty version is any.
func kernelOf(depends string) (name, version string, ok bool) {
	for _, alternatives := range debian.Dependencies(depends) {
		d := alternatives[0]
		if !strings.HasPrefix(d.Name, kernelPackage) {
			continue
		}
		if d.Relation == "=" {
			version = d.Version
		}
		return d.Name, version, true
	}
	return "", "", false
}
