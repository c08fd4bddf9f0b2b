package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/debian"
	"banger/internal/hostcheck"
	"banger/internal/statedir"
	"banger/internal/tree"
)

const (
	unpackedDir = "unpacked" // in the staging directory, removed before the kernel is published
	// neededSpace is what Debian's package, its unpacked files, vmlinux and modules.ext4 take together, with some to spare.
	neededSpace = 512 << 20
)

// fetch downloads, makes and publishes the default kernel. On error nothing is left.
func (m *Manager) fetch(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error) {
	if err := hostcheck.Room(m.Dir.Kernels(), neededSpace); err != nil {
		return banger.Kernel{}, err
	}
	tell := func(detail string, done, total int64) {
		progress.Report(banger.Progress{Stage: "kernel", Text: stageText(name), Detail: detail, Bytes: done, Total: total})
	}
	return m.stage(name, func(staging statedir.KernelDir) (manifest, error) {
		file, err := m.download(ctx, staging.Path, tell)
		if err != nil {
			return manifest{}, err
		}
		made, err := m.fromPackage(ctx, staging, file, tell)
		return made, errors.Join(err, os.Remove(file))
	})
}

// stage publishes under name what produce makes in a staging directory. The caller has the claim on the name. On error nothing
// is left.
func (m *Manager) stage(name string, produce func(statedir.KernelDir) (manifest, error)) (kernel banger.Kernel, err error) {
	staging := m.Dir.KernelStaging(name)
	defer func() {
		if err != nil {
			err = errors.Join(banger.SpaceError(err, m.Dir.Kernels()), os.RemoveAll(staging.Path))
		}
	}()
	if err := errors.Join(os.RemoveAll(staging.Path), os.Mkdir(staging.Path, 0o700)); err != nil {
		return kernel, err
	}
	made, err := produce(staging)
	if err != nil {
		return kernel, err
	}
	made.Name = name
	return made.Kernel, m.publish(staging, made)
}

// fromPackage makes a kernel's directory from a Debian package.
func (m *Manager) fromPackage(ctx context.Context, staging statedir.KernelDir, file string, tell func(detail string, done, total int64)) (manifest, error) {
	f, err := os.Open(file)
	if err != nil {
		return manifest{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return manifest{}, err
	}
	pkg, err := debian.Open(f, info.Size())
	if err != nil {
		return manifest{}, err
	}
	return m.fromTree(ctx, staging, pkg.Files(limits), pkg.Name+" "+pkg.Version, tell)
}

// fromTree makes a kernel's directory from the files that a distribution installs for it.
func (m *Manager) fromTree(ctx context.Context, staging statedir.KernelDir, src tree.Source, origin string, tell func(detail string, done, total int64)) (manifest, error) {
	path := filepath.Join(staging.Path, unpackedDir)
	if err := os.Mkdir(path, 0o700); err != nil {
		return manifest{}, err
	}
	unpacked, err := os.OpenRoot(path)
	if err != nil {
		return manifest{}, err
	}
	defer unpacked.Close()
	made := manifest{Format: format, Kernel: banger.Kernel{Source: origin, CreatedAt: m.Now().UTC()}}
	got, err := unpack(ctx, src, unpacked, func(n int64) { tell("unpacking", n, 0) })
	if err != nil {
		return manifest{}, err
	}
	made.Version = got.version
	if made.VmlinuxSHA, err = makeVmlinux(staging.Vmlinux(), unpacked); err != nil {
		return manifest{}, err
	}
	config, err := configIn(unpacked, staging.Vmlinux())
	if err != nil {
		return manifest{}, err
	}
	if err := makeModules(ctx, staging, unpacked, got, config, &made, tell); err != nil {
		return manifest{}, err
	}
	if err := made.measure(staging); err != nil {
		return manifest{}, err
	}
	return made, os.RemoveAll(path)
}

// makeModules makes modules.ext4 and what initrds need of it, and says in made what the kernel has.
func makeModules(ctx context.Context, staging statedir.KernelDir, unpacked *os.Root, of release, config buildConfig, made *manifest, tell func(detail string, done, total int64)) error {
	tell("indexing modules", 0, 0)
	modules, err := unpacked.OpenRoot(unpackedModules)
	if err != nil {
		return err
	}
	defer modules.Close()
	known, err := readModules(ctx, modules)
	if err != nil {
		return err
	}
	made.ModuleCount = len(known.modules)
	if made.Features, err = known.inspect(config); err != nil {
		return err
	}
	if made.BootModules, err = known.bootModules(made.Features); err != nil {
		return err
	}
	if err := known.checkBuild(of.version, made.BootModules); err != nil {
		return err
	}
	if err := makeBootModules(staging.BootModules(), modules, known, made.BootModules); err != nil {
		return err
	}
	if err := known.writeIndexes(modules); err != nil {
		return err
	}
	tell("writing modules", 0, 0)
	return writeModulesImage(ctx, staging.Modules(), modules, of)
}

// measure fills in sizes and sums of what was made.
func (made *manifest) measure(staging statedir.KernelDir) error {
	info, err := os.Stat(staging.Vmlinux())
	if err != nil {
		return err
	}
	modules, err := os.Open(staging.Modules())
	if err != nil {
		return err
	}
	defer modules.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, modules)
	made.VmlinuxBytes, made.SizeBytes, made.ModulesSHA = info.Size(), info.Size()+size, hex.EncodeToString(sum.Sum(nil))
	return err
}

// makeVmlinux writes vmlinux durably and gives its sha256.
func makeVmlinux(path string, unpacked *os.Root) (sum string, err error) {
	image, err := unpacked.Open(unpackedKernel)
	if err != nil {
		return "", err
	}
	defer image.Close()
	info, err := image.Stat()
	if err != nil {
		return "", err
	}
	err = create(path, func(f *os.File) error {
		size, err := unpackVmlinux(f, image, info.Size())
		if err != nil {
			return err
		}
		hash := sha256.New()
		_, err = io.Copy(hash, io.NewSectionReader(f, 0, size))
		sum = hex.EncodeToString(hash.Sum(nil))
		return err
	})
	return sum, err
}

// makeBootModules copies the modules that initrds are made of, durably.
func makeBootModules(dir string, modules *os.Root, known *catalog, names []string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		content, err := modules.ReadFile(known.path(name))
		if err != nil {
			return err
		}
		err = create(bootModule(dir, name), func(f *os.File) error {
			_, err := f.Write(content)
			return err
		})
		if err != nil {
			return err
		}
	}
	return atomicfile.SyncDir(dir)
}

func bootModule(dir, name string) string { return filepath.Join(dir, name+".ko") }

// create makes a file that nobody changes again, durably but for its name.
func create(path string, write func(*os.File) error) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o444)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(f); err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o444), f.Sync())
}

// publish gives a finished staging directory its final name.
func (m *Manager) publish(staging statedir.KernelDir, made manifest) error {
	text, err := json.MarshalIndent(made, "", "\t")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(staging.Manifest(), append(text, '\n'), fs.FileMode(0o600)); err != nil {
		return err
	}
	if err := os.Rename(staging.Path, m.Dir.Kernel(made.Name).Path); err != nil {
		return fmt.Errorf("publish kernel: %w", err)
	}
	return atomicfile.SyncDir(m.Dir.Kernels())
}
