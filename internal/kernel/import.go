package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/debian"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// architectures of Debian packages that may have a kernel for x86-64, or its modules.
var architectures = map[string]bool{"amd64": true, "all": true}

// errSame ends an import of what is there already.
var errSame = errors.New("the same kernel is there")

// Import makes a kernel of what lies on this computer, as stage "kernel". When the name has the same kernel already, that one is
// given. On error nothing is left.
// Errors: ErrInvalid for a bad name and for what has no kernel, or several; ErrConflict for a name that another kernel has, or
// that banger keeps for itself; ErrNotFound; ErrUnsupported for a kernel that can't run a guest; ErrCorrupt; ErrRefused for
// files that may not be read; ErrUnavailable without disk space.
func (m *Manager) Import(ctx context.Context, name string, src banger.KernelSource, progress banger.ProgressFunc) (kernel banger.Kernel, err error) {
	defer func() {
		if err != nil {
			err = &banger.Error{Op: "import kernel", Subject: name, Err: err}
		}
	}()
	if err := banger.ValidateKernelName(name); err != nil {
		return kernel, err
	}
	if name == DefaultName {
		return kernel, &banger.Error{Kind: banger.ErrConflict, Err: errors.New("banger fetches the kernel of that name itself"), Hint: "choose another name"}
	}
	text := "importing kernel " + name
	end := progress.Begin("kernel", text)
	tell := func(detail string, done, total int64) {
		progress.Report(banger.Progress{Stage: "kernel", Text: text, Detail: detail, Bytes: done, Total: total})
	}
	release, err := m.claim(ctx, name)
	if err != nil {
		return kernel, err
	}
	defer release()
	old, oldErr := m.read(name)
	taken := &banger.Error{Kind: banger.ErrConflict, Err: errors.New("another kernel has that name"), Hint: "choose another name, or: banger kernel delete " + name}
	if oldErr != nil && !errors.Is(oldErr, banger.ErrNotFound) { // and it is damaged
		return kernel, taken
	}
	kernel, err = m.stage(name, func(staging statedir.KernelDir) (manifest, error) {
		opened, err := m.open(src)
		if err != nil {
			return manifest{}, err
		}
		defer opened.close()
		made, err := m.fromTree(ctx, staging, opened.files, opened.from, tell)
		switch {
		case err != nil || oldErr != nil:
			return made, err
		case old.sameAs(made):
			return made, errSame
		}
		return made, taken
	})
	if errors.Is(err, errSame) {
		kernel, err = old.Kernel, nil
	}
	if err == nil {
		end()
	}
	return kernel, err
}

// sameAs compares all but names and times.
func (made manifest) sameAs(other manifest) bool {
	made.Name, made.Source, made.CreatedAt = other.Name, other.Source, other.CreatedAt
	return reflect.DeepEqual(made, other)
}

// opened is a source that is being read.
type opened struct {
	files   tree.Source
	from    string
	closers []func() error
}

func (o *opened) close() {
	for _, c := range o.closers {
		_ = c() // of files that were only read
	}
}

func (m *Manager) open(src banger.KernelSource) (*opened, error) {
	switch {
	case len(src.Packages) > 0 && src.Dir == "" && !src.Host:
		return openPackages(src.Packages)
	case len(src.Packages) == 0 && src.Dir != "" && !src.Host:
		return openDirectory(src.Dir, "")
	case len(src.Packages) == 0 && src.Dir == "" && src.Host:
		return m.openHost()
	}
	return nil, banger.Invalidf("want packages, or a directory, or the host's kernel: one of them")
}

// openPackages joins what several packages install.
func openPackages(paths []string) (*opened, error) {
	o := &opened{}
	var packages []*debian.Package
	var names []string
	for _, path := range paths {
		pkg, err := o.openPackage(path)
		if err != nil {
			o.close()
			return nil, &banger.Error{Op: "package", Subject: path, Err: err, Hint: cmp.Or(banger.HintOf(err), "want a kernel's package of Debian or Ubuntu: linux-image-….deb")}
		}
		packages, names = append(packages, pkg), append(names, pkg.Name+" "+pkg.Version)
	}
	if err := checkParts(packages); err != nil {
		o.close()
		return nil, err
	}
	o.from = strings.Join(names, ", ")
	o.files = func(yield func(tree.Entry, error) bool) {
		for i, pkg := range packages {
			for e, err := range pkg.Files(limits) {
				if err != nil {
					err = &banger.Error{Op: "package", Subject: paths[i], Err: err}
				}
				if !yield(e, err) {
					return
				}
			}
		}
	}
	return o, nil
}

// checkParts misses the package with the modules, which Ubuntu has beside the one with the kernel.
func checkParts(packages []*debian.Package) error {
	given := map[string]bool{}
	for _, pkg := range packages {
		given[pkg.Name] = true
	}
	for _, pkg := range packages {
		for _, alternatives := range debian.Dependencies(pkg.Control.Get("Depends")) {
			needed := alternatives[0].Name
			if strings.HasPrefix(needed, "linux-modules-") && !given[needed] {
				return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("package %s needs %s, which has its modules", pkg.Name, needed), Hint: "give it too, with another --deb"}
			}
		}
	}
	return nil
}

func (o *opened) openPackage(path string) (*debian.Package, error) {
	f, err := openFile(func(flags int) (*os.File, error) { return os.OpenFile(path, flags, 0) })
	if err != nil {
		return nil, fileError(err)
	}
	o.closers = append(o.closers, f.Close)
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	pkg, err := debian.Open(f, info.Size())
	if err != nil {
		return nil, err
	}
	if !architectures[pkg.Architecture] {
		return nil, fmt.Errorf("%w: it is for %s, want amd64", banger.ErrUnsupported, pkg.Architecture)
	}
	return pkg, nil
}

// openFile opens what must be a regular file, and waits for nothing if it is none.
func openFile(open func(flags int) (*os.File, error)) (*os.File, error) {
	f, err := open(os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = banger.Invalidf("%s is no file", f.Name())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// fileError gives the error of a file that was named by a user its kind.
func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &banger.Error{Kind: banger.ErrNotFound, Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &banger.Error{Kind: banger.ErrRefused, Err: err, Hint: "banger reads files as you, never as root"}
	}
	return err
}

// openHost finds the kernel that this computer runs.
func (m *Manager) openHost() (*opened, error) {
	version, err := m.hostRelease()
	if err != nil {
		return nil, err
	}
	return openDirectory(m.hostRoot, version)
}

// runningRelease is uname -r.
func runningRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("ask for the kernel's version: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// Delete removes a kernel, also a damaged one, and gives its record as far as it can be read. Nobody may use it.
// Errors: ErrNotFound.
func (m *Manager) Delete(ctx context.Context, name string) (banger.Kernel, error) {
	if _, err := m.read(name); errors.Is(err, banger.ErrNotFound) { // who makes it right now is not waited for
		return banger.Kernel{}, err
	}
	release, err := m.claim(ctx, name)
	if err != nil {
		return banger.Kernel{}, fmt.Errorf("delete kernel %s: %w", name, err)
	}
	defer release()
	found, err := m.read(name)
	if errors.Is(err, banger.ErrNotFound) {
		return banger.Kernel{}, err
	}
	found.Name = name
	// Out of sight first: what a crash leaves is removed by CleanUp.
	staging := m.Dir.KernelStaging(name)
	if err := errors.Join(os.RemoveAll(staging.Path), os.Rename(m.Dir.Kernel(name).Path, staging.Path)); err != nil {
		return found.Kernel, fmt.Errorf("delete kernel %s: %w", name, err)
	}
	return found.Kernel, errors.Join(atomicfile.SyncDir(m.Dir.Kernels()), os.RemoveAll(staging.Path))
}

// Available gives the kernels that can be had by name, whether or not they are there. Errors: those of the catalog.
func (m *Manager) Available(ctx context.Context) ([]banger.KernelOffer, error) {
	offers := []banger.KernelOffer{{Name: DefaultName, Source: "Debian's package " + metaPackage,
		Description: "Debian's kernel for virtual machines; the first vm run fetches it"}}
	if !m.Catalog.Configured() {
		return offers, nil
	}
	index, err := m.Catalog.Index(ctx)
	for _, e := range index.Kernels {
		if e.Name == DefaultName { // is taken from there then
			offers = nil
		}
	}
	for _, e := range index.Kernels {
		offers = append(offers, banger.KernelOffer{Name: e.Name, Source: "catalog " + m.Catalog.URL, Description: cmp.Or(e.Description, e.Version)})
	}
	return offers, err
}
