package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/tree"
)

// What is unpacked of a kernel's package, in a directory of its own. Modules are unpacked whatever their compression: then every
// kernel and every kmod can load them.
const (
	unpackedKernel  = "vmlinuz"
	unpackedConfig  = "config"
	unpackedModules = "modules" // what belongs in /usr/lib/modules/<version>
	modulesOrder    = "modules.order"
	modulesBuiltin  = "modules.builtin"
	builtinModinfo  = "modules.builtin.modinfo"
)

// reportEvery is how many bytes are unpacked between two reports.
const reportEvery = 4 << 20

// maxModule is the most that one compressed module may become.
const maxModule = 256 << 20

// limits bound what a kernel's files are, packed and unpacked. Debian's full kernel with debug symbols left out has 600 MB and
// 5,000 files.
var limits = tree.Limits{Entries: 100_000, Bytes: 4 << 30}

var versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+_~-]{0,63}$`)

// release is which kernel a package has.
type release struct {
	version string    // uname -r
	built   time.Time // of the kernel's file
}

// unpack writes kernel, configuration and modules from a package's tree into dir.
// Errors: ErrUnsupported when there is not exactly one kernel, or modules of another one; ErrCorrupt.
func unpack(ctx context.Context, src tree.Source, dir *os.Root, report func(bytes int64)) (release, error) {
	var got release
	found := map[string]string{} // version by what it was found in
	var total, told int64
	for entry, err := range src {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return release{}, fmt.Errorf("read the kernel's files: %w", err)
		}
		target, of := place(entry.Path)
		if entry.Kind != tree.File || target == "" {
			continue
		}
		if !versionPattern.MatchString(of) {
			return release{}, fmt.Errorf("%w: kernel version %.80q", banger.ErrUnsupported, of)
		}
		part, _, _ := strings.Cut(target, "/")
		other, ok := found[part]
		if ok && target == unpackedConfig {
			continue // one is enough
		}
		if ok && other != of {
			return release{}, fmt.Errorf("%w: kernels %s and %s in one package", banger.ErrUnsupported, other, of)
		}
		found[part] = of
		n, err := unpackFile(dir, target, entry, limits.Bytes-total)
		if err != nil {
			return release{}, err
		}
		if target == unpackedKernel {
			got.built = entry.ModTime
		}
		if total += n; total-told >= reportEvery {
			told = total
			report(total)
		}
	}
	got.version = found[unpackedKernel]
	switch of, ok := found[unpackedModules]; {
	case got.version == "":
		return release{}, fmt.Errorf("%w: no kernel in it (boot/vmlinuz-…)", banger.ErrUnsupported)
	case ok && of != got.version:
		return release{}, fmt.Errorf("%w: no modules of kernel %s in it, but of %s", banger.ErrUnsupported, got.version, of)
	}
	if err := dir.Mkdir(unpackedModules, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return release{}, err
	}
	return got, checkRelease(dir, got.version)
}

// checkRelease compares what a kernel says of itself with its file's name.
func checkRelease(dir *os.Root, version string) error {
	image, err := dir.Open(unpackedKernel)
	if err != nil {
		return err
	}
	defer image.Close()
	info, err := image.Stat()
	if err != nil {
		return err
	}
	if own := imageRelease(image, info.Size()); own != "" && own != version {
		return fmt.Errorf("%w: it is called kernel %s and says that it is %s", banger.ErrUnsupported, version, own)
	}
	return nil
}

// place says where a package's file goes and of which kernel it is; an empty target for what is not needed.
func place(name string) (target, version string) {
	name = strings.TrimPrefix(name, "usr/")
	for _, prefix := range []string{"boot/vmlinuz-", "boot/vmlinux-"} {
		if version, ok := strings.CutPrefix(name, prefix); ok {
			return unpackedKernel, version
		}
	}
	if version, ok := strings.CutPrefix(name, "boot/config-"); ok {
		return unpackedConfig, version
	}
	rest, ok := strings.CutPrefix(name, "lib/modules/")
	version, file, isFile := strings.Cut(rest, "/")
	if !ok || !isFile {
		return "", ""
	}
	if file == unpackedKernel || file == unpackedConfig {
		return file, version
	}
	if slices.Contains([]string{modulesOrder, modulesBuiltin, builtinModinfo}, file) {
		return path.Join(unpackedModules, file), version
	}
	for _, extension := range []string{"", ".gz", ".xz", ".zst"} {
		if plain, ok := strings.CutSuffix(file, extension); ok && strings.HasSuffix(plain, ".ko") {
			return path.Join(unpackedModules, plain), version
		}
	}
	return "", ""
}

// unpackFile gives how many bytes it wrote, at most left.
func unpackFile(dir *os.Root, target string, entry tree.Entry, left int64) (n int64, err error) {
	content, limit := entry.Content, entry.Size
	if content == nil {
		content = strings.NewReader("")
	}
	if path.Ext(target) == ".ko" && path.Ext(entry.Path) != ".ko" {
		module, err := decompress(content)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", entry.Path, err)
		}
		defer module.Close()
		content, limit = module, maxModule
	}
	limit = min(limit, left)
	if err := dir.MkdirAll(path.Dir(target), 0o755); err != nil {
		return 0, err
	}
	f, err := dir.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("%w: %s is there twice", banger.ErrCorrupt, entry.Path)
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err = io.Copy(f, io.LimitReader(content, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("%w: more than %s", banger.ErrUnsupported, banger.FormatSize(limit))
	}
	if err != nil {
		return n, fmt.Errorf("%s: %w", entry.Path, err)
	}
	return n, nil
}
