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
	unpackedModules = "modules" // what belongs in /usr/lib/modules/<version>
	modulesOrder    = "modules.order"
	modulesBuiltin  = "modules.builtin"
	builtinModinfo  = "modules.builtin.modinfo"
)

// reportEvery is how many bytes are unpacked between two reports.
const reportEvery = 4 << 20

// maxModule is the most that one compressed module may become.
const maxModule = 256 << 20

// limits bound what a package unpacks to. Debian's full kernel with debug symbols left out has 600 MB and 5,000 files.
var limits = tree.Limits{Entries: 100_000, Bytes: 4 << 30}

var versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+_~-]{0,63}$`)

// release is which kernel a package has.
type release struct {
	version string    // uname -r
	built   time.Time // of the kernel's file
}

// unpack writes kernel and modules from a package's tree into dir.
// Errors: ErrUnsupported when there is not exactly one kernel with its modules; ErrCorrupt.
func unpack(ctx context.Context, src tree.Source, dir *os.Root, report func(bytes int64)) (release, error) {
	var got release
	found := map[string]string{} // version by what it was found in
	var total, told int64
	for entry, err := range src {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return release{}, fmt.Errorf("read the package: %w", err)
		}
		target, of := place(entry.Path)
		if entry.Kind != tree.File || target == "" {
			continue
		}
		if !versionPattern.MatchString(of) {
			return release{}, fmt.Errorf("%w: kernel version %.80q", banger.ErrUnsupported, of)
		}
		part, _, _ := strings.Cut(target, "/")
		if other, ok := found[part]; ok && other != of {
			return release{}, fmt.Errorf("%w: kernels %s and %s in one package", banger.ErrUnsupported, other, of)
		}
		found[part] = of
		if err := unpackFile(dir, target, entry); err != nil {
			return release{}, err
		}
		if target == unpackedKernel {
			got.built = entry.ModTime
		}
		if total += entry.Size; total-told >= reportEvery {
			told = total
			report(total)
		}
	}
	got.version = found[unpackedKernel]
	switch {
	case got.version == "":
		return release{}, fmt.Errorf("%w: no kernel in it (boot/vmlinuz-…)", banger.ErrUnsupported)
	case found[unpackedModules] != got.version:
		return release{}, fmt.Errorf("%w: no modules of kernel %s in it", banger.ErrUnsupported, got.version)
	}
	return got, nil
}

// place says where a package's file goes and of which kernel it is; an empty target for what is not needed.
func place(name string) (target, version string) {
	name = strings.TrimPrefix(name, "usr/")
	for _, prefix := range []string{"boot/vmlinuz-", "boot/vmlinux-"} {
		if version, ok := strings.CutPrefix(name, prefix); ok {
			return unpackedKernel, version
		}
	}
	rest, ok := strings.CutPrefix(name, "lib/modules/")
	version, file, isFile := strings.Cut(rest, "/")
	if !ok || !isFile {
		return "", ""
	}
	if file == unpackedKernel {
		return unpackedKernel, version
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

func unpackFile(dir *os.Root, target string, entry tree.Entry) (err error) {
	content, limit := entry.Content, entry.Size
	if content == nil {
		content = strings.NewReader("")
	}
	if path.Ext(target) == ".ko" && path.Ext(entry.Path) != ".ko" {
		module, err := decompress(content)
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Path, err)
		}
		defer module.Close()
		content, limit = module, maxModule
	}
	if err := dir.MkdirAll(path.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := dir.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s is there twice", banger.ErrCorrupt, entry.Path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, io.LimitReader(content, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("%w: more than %s", banger.ErrUnsupported, banger.FormatSize(limit))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", entry.Path, err)
	}
	return nil
}
