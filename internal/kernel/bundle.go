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
	"regexp"
	"slices"
	"strings"
	"time"

	"banger"
	published "banger/internal/catalog"
	"banger/internal/ext4/check"
	"banger/internal/statedir"
)

const (
	bundleManifest    = "kernel.json"
	bundleVmlinux     = "vmlinux"
	bundleModules     = "modules.ext4"
	bundleBootModules = "boot-modules"
	maxManifest       = 1 << 20
	maxFeatures       = 1000
)

// bundleParts are the files of a kernel's bundle.
var bundleParts = []published.Part{{Name: bundleManifest, MaxBytes: maxManifest}, {Name: bundleVmlinux, MaxBytes: maxVmlinux}, {Name: bundleModules, MaxBytes: maxModulesImage},
	{Name: bundleBootModules + "/*.ko", MaxBytes: maxModule}}

// obtain gets a kernel that is not there: from the catalog, or else, the default one, by fetch. The caller has the claim on the name.
func (m *Manager) obtain(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error) {
	kernel, err := m.fromCatalog(ctx, name, progress)
	if err == nil || name != DefaultName || ctx.Err() != nil {
		return kernel, err
	}
	if !errors.Is(err, banger.ErrNotFound) {
		progress.Notice("kernel", fmt.Sprintf("%s does not come from the catalog: %v", name, err))
	}
	return m.fetch(ctx, name, progress)
}

// fromCatalog makes the kernel that the catalog has under a name. Errors: ErrNotFound when there is no catalog, or no such kernel in it;
// ErrCorrupt; those of [published.Catalog].
func (m *Manager) fromCatalog(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error) {
	entry, err := m.Catalog.Kernel(ctx, name)
	if err != nil {
		return banger.Kernel{}, err
	}
	return m.stage(name, func(staging statedir.KernelDir) (manifest, error) {
		tell := func(detail string, done, total int64) {
			progress.Report(banger.Progress{Stage: "kernel", Text: stageText(name) + " from the catalog " + m.Catalog.URL, Detail: detail, Bytes: done, Total: total})
		}
		tell(downloading, 0, entry.SizeBytes)
		bundle, err := m.Catalog.Fetch(ctx, entry.Bundle, func(done int64) { tell(downloading, done, entry.SizeBytes) })
		if err != nil {
			return manifest{}, err
		}
		defer bundle.Close()
		tell("unpacking", 0, 0)
		made, err := installBundle(ctx, staging, bundle, entry)
		if err != nil {
			return made, &banger.Error{Op: "bundle", Subject: name, Err: err}
		}
		made.Source, made.CreatedAt = "catalog "+m.Catalog.URL, m.Now().UTC()
		return made, nil
	})
}

func badBundle(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}

// installBundle unpacks a bundle into a staging directory and checks that it is what the entry and its own manifest say, and that
// machines can take it. Errors: ErrCorrupt; ErrUnsupported for a kernel that can't run a guest.
func installBundle(ctx context.Context, staging statedir.KernelDir, bundle io.Reader, entry banger.CatalogKernel) (manifest, error) {
	if err := published.Unpack(ctx, bundle, staging.Path, bundleParts); err != nil {
		return manifest{}, err
	}
	text, err := os.ReadFile(filepath.Join(staging.Path, bundleManifest))
	if err != nil {
		return manifest{}, err
	}
	var made manifest
	if err := json.Unmarshal(text, &made); err != nil {
		return manifest{}, badBundle("%s: %w", bundleManifest, err)
	}
	if made.Name != entry.Name || made.Version != entry.Version {
		return manifest{}, badBundle("it is of kernel %.80q, version %.80q, the index says another", made.Name, made.Version)
	}
	if made.Format != format {
		return manifest{}, &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf("it has format %d, this banger knows %d", made.Format, format)}
	}
	said := made
	if err := made.measure(staging); err != nil {
		return manifest{}, err
	}
	if made.VmlinuxSHA, err = judgeVmlinux(staging.Vmlinux()); err != nil {
		return manifest{}, err
	}
	if made.VmlinuxSHA != said.VmlinuxSHA || made.ModulesSHA != said.ModulesSHA || made.SizeBytes != said.SizeBytes {
		return manifest{}, badBundle("sizes or digests of %s and %s are not what %s says", bundleVmlinux, bundleModules, bundleManifest)
	}
	if err := judgeModules(staging.Modules()); err != nil {
		return manifest{}, err
	}
	if err := judgeFeatures(made.Features); err != nil {
		return manifest{}, err
	}
	return made, judgeBootModules(staging.BootModules(), made.BootModules)
}

// judgeVmlinux wants a kernel that VMMs start, and gives its sha256.
func judgeVmlinux(path string) (sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, f)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), checkVmlinux(f, size)
}

// judgeModules wants a file system without faults.
func judgeModules(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	faults, err := check.Check(f, info.Size(), check.Options{})
	switch {
	case errors.Is(err, banger.ErrUnsupported):
		return badBundle("%s: %w", bundleModules, err)
	case err == nil && len(faults) > 0:
		return badBundle("%s has %d faults: %s", bundleModules, len(faults), faults[0])
	}
	return err
}

var (
	featureName    = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	bootModuleName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)
)

func judgeFeatures(features []banger.KernelFeature) error {
	states := []banger.FeatureState{banger.FeatureBuiltIn, banger.FeatureModule, banger.FeatureMissing, banger.FeatureUnknown}
	if len(features) > maxFeatures {
		return badBundle("%s names %d features", bundleManifest, len(features))
	}
	for _, f := range features {
		switch {
		case !featureName.MatchString(f.Name) || !slices.Contains(states, f.State):
			return badBundle("%s has feature %.80q: %.80q", bundleManifest, f.Name, f.State)
		case f.Required && f.State == banger.FeatureMissing:
			return &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf("the kernel can't run a guest: no %s", f.Name), Hint: noKernelForGuests}
		}
	}
	return nil
}

// judgeBootModules wants a file for each name and no other. An empty directory is in no bundle.
func judgeBootModules(dir string, names []string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var there []string
	for _, entry := range entries {
		there = append(there, strings.TrimSuffix(entry.Name(), ".ko"))
	}
	for _, name := range there {
		if !bootModuleName.MatchString(name) {
			return badBundle("a boot module is called %.80q", name)
		}
	}
	want := slices.Sorted(slices.Values(names))
	if slices.Sort(there); !slices.Equal(there, want) {
		return badBundle("it has the boot modules %.200q, %s says %.200q", there, bundleManifest, want)
	}
	return nil
}

// Bundle makes the bundle of a kernel in the directory dir, as stage "bundle", and gives its entry for an index. The same kernel gives
// the same bytes. On error nothing is left. Errors: ErrNotFound; ErrUnavailable without disk space.
func (m *Manager) Bundle(ctx context.Context, name, dir string, progress banger.ProgressFunc) (entry banger.CatalogKernel, err error) {
	release, err := m.claim(ctx, name)
	if err != nil {
		return entry, err
	}
	defer release()
	made, err := m.read(name)
	if err != nil {
		return entry, err
	}
	text := "packing kernel " + name
	end := progress.Begin("bundle", text)
	// Where and when it was made is of no use elsewhere, and tells about this computer.
	made.Source, made.CreatedAt = "", time.Unix(0, 0).UTC()
	from := m.Dir.Kernel(name)
	if made.ModulesSHA == "" { // made by an older banger
		if err := made.measure(from); err != nil {
			return entry, err
		}
	}
	said, err := json.MarshalIndent(made, "", "\t")
	if err != nil {
		return entry, err
	}
	files := []published.File{{Name: bundleManifest, Data: append(said, '\n')}, {Name: bundleVmlinux, Path: from.Vmlinux()}, {Name: bundleModules, Path: from.Modules()}}
	for _, module := range slices.Sorted(slices.Values(made.BootModules)) {
		files = append(files, published.File{Name: bundleBootModules + "/" + module + ".ko", Path: bootModule(from.BootModules(), module)})
	}
	b, err := published.Pack(ctx, dir, name, files, func(done int64) {
		progress.Report(banger.Progress{Stage: "bundle", Text: text, Bytes: done, Total: made.SizeBytes})
	})
	if err != nil {
		return entry, &banger.Error{Op: "pack kernel", Subject: name, Err: banger.SpaceError(err, dir)}
	}
	end()
	return banger.CatalogKernel{Bundle: b, Version: made.Version}, nil
}
