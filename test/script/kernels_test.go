package script

import (
	"cmp"
	"context"
	"strings"

	"banger"
)

// kernels stands for the kernel manager: there is one kernel, another can be fetched, and every import works.
type kernels struct{}

func (kernels) Ensure(_ context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error) {
	if name == "other" {
		defer progress.Begin("kernel", "fetching kernel "+name)()
		made := kernel
		made.Name = name
		return made, nil
	}
	return kernels{}.Get(name)
}

func (kernels) Initrd(context.Context, banger.Kernel, string) (string, error) { return "/initrd", nil }

func (kernels) List() ([]banger.Kernel, error) { return []banger.Kernel{kernel}, nil }

func (kernels) Get(name string) (banger.Kernel, error) {
	if name != kernel.Name {
		return banger.Kernel{}, &banger.Error{Kind: banger.ErrNotFound, Op: "kernel", Subject: name, Hint: banger.DidYouMean(name, []string{kernel.Name})}
	}
	return kernel, nil
}

func (kernels) Delete(_ context.Context, name string) (banger.Kernel, error) {
	return kernels{}.Get(name)
}

func (kernels) Available(context.Context) ([]banger.KernelOffer, error) {
	return []banger.KernelOffer{{Name: kernel.Name, Source: "its package", Description: "the default"}, {Name: "other", Source: "elsewhere"}}, nil
}

func (kernels) Import(_ context.Context, name string, src banger.KernelSource, progress banger.ProgressFunc) (banger.Kernel, error) {
	defer progress.Begin("kernel", "importing kernel "+name)()
	made := kernel
	made.Name, made.Source = name, cmp.Or(strings.Join(src.Packages, " "), src.Dir, "host")
	return made, nil
}
