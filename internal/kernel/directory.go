package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"banger"
	"banger/internal/tree"
)

// Where a tree may have its modules. Debian and Ubuntu have lib/modules, Fedora and Arch usr/lib/modules, with the kernel in it.
var moduleHomes = []string{"usr/lib/modules", "lib/modules", "modules"}

// buildImage is where the kernel's build leaves its bzImage.
const buildImage = "arch/x86/boot/bzImage"

// kernelFile is a file of a tree that is a kernel by its name.
type kernelFile struct {
	path    string
	version string // that its name says; may be empty
	info    fs.FileInfo
}

// kernelTree is a tree with a kernel. Only what lies in it is read: symbolic links are followed inside of it and no further.
type kernelTree struct {
	root    *os.Root
	at      string // for errors
	host    bool   // it is this computer's own
	version string
	image   *os.File
	size    int64
}

// openDirectory finds the kernel below dir, the one of this version unless that is empty, with its modules and configuration.
func openDirectory(dir, version string) (*opened, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fileError(err)
	}
	if !info.IsDir() { // nor is it opened: a FIFO would be waited for
		return nil, &banger.Error{Kind: banger.ErrInvalid, Subject: dir, Err: errors.New("it is no directory"), Hint: "name the directory that the kernel is in"}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fileError(err)
	}
	t := &kernelTree{root: root, at: dir, host: version != "", version: version}
	o := &opened{from: "directory " + dir, closers: []func() error{root.Close}}
	if t.host {
		o.from = "kernel of this computer"
	}
	if err := t.find(); err != nil {
		o.close()
		return nil, t.explain(err)
	}
	o.closers = append(o.closers, t.image.Close)
	modules, err := t.modules()
	if err != nil {
		o.close()
		return nil, t.explain(err)
	}
	o.files = t.source(modules)
	return o, nil
}

// find opens the kernel and finds out its version.
func (t *kernelTree) find() error {
	files, err := t.kernelFiles()
	if err != nil {
		return err
	}
	if t.host {
		return t.openVersion(files)
	}
	var versions []string
	for _, f := range files {
		if f.version != "" && !slices.Contains(versions, f.version) {
			versions = append(versions, f.version)
		}
	}
	switch {
	case len(files) == 0:
		return &banger.Error{Kind: banger.ErrInvalid, Subject: t.at, Err: errors.New("there is no kernel in it"),
			Hint: "looked for: vmlinuz, vmlinux, bzImage, boot/vmlinuz-…, usr/lib/modules/…/vmlinuz, " + buildImage}
	case len(versions) > 1:
		return t.several(versions)
	case len(versions) == 1:
		files = slices.DeleteFunc(files, func(f kernelFile) bool { return f.version == "" })
	case files[0].path == buildImage:
		files = files[:1] // vmlinux beside it is the same kernel
	case len(files) > 1:
		var paths []string
		for _, f := range files {
			paths = append(paths, f.path)
		}
		return t.several(paths)
	}
	if err := t.openFirst(files); err != nil {
		return err
	}
	if own := imageRelease(t.image, t.size); own != "" {
		t.version = own
	} else if t.version = files[0].version; t.version == "" {
		return fmt.Errorf("%w: %s does not say which version it is", banger.ErrUnsupported, files[0].path)
	}
	return nil
}

func (t *kernelTree) several(names []string) error {
	slices.Sort(names)
	return &banger.Error{Kind: banger.ErrInvalid, Subject: t.at, Err: fmt.Errorf("there are several kernels in it: %s", strings.Join(names, ", ")),
		Hint: "copy the files of one of them into a directory"}
}

// openVersion opens the kernel of one version: by its name, else by what an unversioned one says of itself.
func (t *kernelTree) openVersion(files []kernelFile) error {
	named := slices.DeleteFunc(slices.Clone(files), func(f kernelFile) bool { return f.version != t.version })
	if len(named) > 0 {
		return t.openFirst(named)
	}
	for _, f := range files {
		if f.version != "" || t.openFirst([]kernelFile{f}) != nil {
			continue
		}
		if imageRelease(t.image, t.size) == t.version {
			return nil
		}
		t.image.Close()
	}
	return &banger.Error{Kind: banger.ErrNotFound, Err: fmt.Errorf("there is no file of kernel %s on this computer", t.version),
		Hint: "looked for: /boot/vmlinuz-" + t.version + ", /usr/lib/modules/" + t.version + "/vmlinuz"}
}

// openFirst opens the first of files that may be read.
func (t *kernelTree) openFirst(files []kernelFile) error {
	var first error
	for _, f := range files {
		image, err := t.open(f.path)
		if err == nil {
			t.image, t.size = image, f.info.Size()
			return nil
		}
		if first == nil {
			first = err
		}
		if errors.Is(err, fs.ErrPermission) {
			first = &banger.Error{Kind: banger.ErrRefused, Err: err, Hint: "to let everyone read it: sudo chmod a+r " + path.Join(t.at, f.path)}
		}
	}
	return first
}

func (t *kernelTree) open(name string) (*os.File, error) {
	return openFile(func(flags int) (*os.File, error) { return t.root.OpenFile(name, flags, 0) })
}

// kernelFiles lists what may be a kernel, what is best known to be one first. A file with several names is there once.
func (t *kernelTree) kernelFiles() ([]kernelFile, error) {
	candidates := []kernelFile{{path: buildImage}}
	for _, dir := range []string{"boot", "."} {
		names, err := t.names(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if version, ok := kernelName(name); ok {
				candidates = append(candidates, kernelFile{path: path.Join(dir, name), version: version})
			}
		}
	}
	for _, home := range moduleHomes {
		names, err := t.names(home)
		if err != nil {
			return nil, err
		}
		for _, version := range slices.DeleteFunc(names, isNoVersion) {
			candidates = append(candidates, kernelFile{path: path.Join(home, version, unpackedKernel), version: version})
		}
	}
	var found []kernelFile
	for _, c := range candidates {
		info, err := t.root.Stat(c.path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		same := func(other kernelFile) bool {
			return os.SameFile(other.info, info) && (other.version == c.version || c.version == "")
		}
		if c.info = info; !info.IsDir() && !slices.ContainsFunc(found, same) {
			found = append(found, c)
		}
	}
	return found, nil
}

var (
	kernelNamePattern = regexp.MustCompile(`^(?:vmlinuz|vmlinux|bzImage)$|^(?:vmlinuz|vmlinux|bzImage|kernel)-([0-9].*)$|^vmlinuz-[a-z][a-z0-9-]*$`)
	spareName         = regexp.MustCompile(`-rescue|\.(old|bak|dpkg-.*|rpm.*|gz|xz|zst)$`)
)

// kernelName tells whether a file's name is that of a kernel, and of which version. Copies that are kept for bad times are none.
func kernelName(name string) (version string, ok bool) {
	parts := kernelNamePattern.FindStringSubmatch(name)
	if parts == nil || spareName.MatchString(name) {
		return "", false
	}
	return parts[1], true
}

// isNoVersion tells apart what else lies where each kernel has a directory for its modules.
func isNoVersion(name string) bool { return name[0] < '0' || name[0] > '9' }

// names gives what a directory has, in order; nothing for one that is not there.
func (t *kernelTree) names(dir string) ([]string, error) {
	f, err := t.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	slices.Sort(names)
	return names, err
}

func (t *kernelTree) has(name string) bool {
	_, err := t.root.Stat(name)
	return err == nil
}

// modules gives the directory with the modules of the kernel, "" when there are none.
// Errors: ErrInvalid when there are those of other kernels.
func (t *kernelTree) modules() (string, error) {
	var others []string
	for _, home := range moduleHomes {
		if t.has(path.Join(home, t.version)) {
			return path.Join(home, t.version), nil
		}
		names, err := t.names(home)
		if err != nil {
			return "", err
		}
		others = append(others, slices.DeleteFunc(names, isNoVersion)...)
	}
	for _, dir := range []string{"modules", "."} {
		if t.has(path.Join(dir, "modules.dep")) || dir != "." && (t.has(path.Join(dir, modulesOrder)) || t.has(path.Join(dir, "kernel"))) {
			return dir, nil
		}
	}
	if len(others) > 0 {
		return "", &banger.Error{Kind: banger.ErrInvalid, Subject: t.at,
			Err: fmt.Errorf("the kernel is %s, but the modules are of %s", t.version, strings.Join(slices.Compact(others), ", "))}
	}
	return "", nil
}

// source gives kernel, configuration and modules by the names that a package has for them. Times are left out: in a directory
// they tell when something was copied.
func (t *kernelTree) source(modules string) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		s := &treeSender{kernelTree: t, yield: yield}
		if !s.yield(tree.Entry{Path: "boot/vmlinuz-" + t.version, Kind: tree.File, Mode: 0o644, Size: t.size, Content: t.image}, nil) {
			return
		}
		err := s.config()
		if err == nil {
			err = s.modules(modules)
		}
		if err != nil && !errors.Is(err, fs.SkipAll) {
			yield(tree.Entry{}, t.explain(err))
		}
	}
}

// treeSender sends the files of a tree. Its methods give fs.SkipAll when the reader has enough.
type treeSender struct {
	*kernelTree
	yield   func(tree.Entry, error) bool
	entries int
}

// config sends the first configuration that can be read: it is of help, not of need.
func (s *treeSender) config() error {
	names := []string{"boot/config-" + s.version, "config-" + s.version, "usr/lib/modules/" + s.version + "/config", "lib/modules/" + s.version + "/config"}
	if s.host {
		names = append(names, "proc/config.gz")
	} else {
		names = append(names, ".config", "config")
	}
	for _, name := range names {
		f, err := s.open(name)
		if err != nil {
			continue
		}
		defer f.Close()
		return s.send(f, "boot/config-"+s.version)
	}
	return nil
}

func (s *treeSender) modules(dir string) error {
	target := "lib/modules/" + s.version + "/"
	if dir == "" { // a kernel's build has these beside its modules, which lie about until they are installed
		for _, name := range []string{modulesBuiltin, builtinModinfo} {
			f, err := s.open(name)
			if err != nil {
				continue
			}
			defer f.Close()
			if err := s.send(f, target+name); err != nil {
				return err
			}
		}
		return nil
	}
	root, err := s.root.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if s.entries++; s.entries > limits.Entries {
			return banger.Invalidf("%s: more than %d files", s.at, limits.Entries)
		}
		if wanted, _ := place(target + name); !strings.HasPrefix(wanted, unpackedModules+"/") || !d.Type().IsRegular() {
			return nil
		}
		f, err := openFile(func(flags int) (*os.File, error) { return root.OpenFile(name, flags, 0) })
		if err != nil {
			return err
		}
		defer f.Close()
		return s.send(f, target+name)
	})
}

// send gives one file of the tree under the name that a package has for it.
func (s *treeSender) send(f *os.File, as string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return next(s.yield(tree.Entry{Path: as, Kind: tree.File, Mode: 0o644, Size: info.Size(), Content: f}, nil))
}

// explain gives an error of the tree's files its kind and says in which tree.
func (t *kernelTree) explain(err error) error {
	var errno syscall.Errno
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok && !errors.As(err, &errno) { // package os refuses what leads out of a root
		return &banger.Error{Kind: banger.ErrInvalid, Subject: t.at, Err: pathErr, Hint: "symbolic links that lead out of the directory are not followed"}
	}
	if banger.KindName(err) != "internal" {
		return err
	}
	return &banger.Error{Subject: t.at, Err: fileError(err)}
}
