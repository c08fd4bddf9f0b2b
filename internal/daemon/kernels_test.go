package daemon_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"banger"
	"banger/api"
)

// kernelList stands for the kernel manager.
type kernelList struct{}

func (kernelList) List() ([]banger.Kernel, error) { return []banger.Kernel{}, nil }

func (kernelList) Available(context.Context) ([]banger.KernelOffer, error) {
	return []banger.KernelOffer{{Name: "debian"}}, nil
}

func (kernelList) Get(name string) (banger.Kernel, error) {
	if name != "debian" {
		return banger.Kernel{}, &banger.Error{Kind: banger.ErrNotFound, Op: "kernel", Subject: name}
	}
	return banger.Kernel{Name: name}, nil
}

func (kernelList) Ensure(_ context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error) {
	progress.Report(banger.Progress{Stage: "kernel", Text: "fetching kernel " + name})
	return kernelList{}.Get(name)
}

func (kernelList) Import(_ context.Context, name string, src banger.KernelSource, progress banger.ProgressFunc) (banger.Kernel, error) {
	progress.Report(banger.Progress{Stage: "kernel", Text: "importing kernel " + name})
	if src.Dir == "/bad" {
		return banger.Kernel{}, &banger.Error{Kind: banger.ErrUnsupported, Op: "import kernel", Err: errors.New("no overlay")}
	}
	return banger.Kernel{Name: name, Source: strings.Join(src.Packages, " ") + src.Dir}, nil
}

func (v *vms) DeleteKernel(_ context.Context, name string) (banger.Kernel, error) {
	if name != "debian" {
		return banger.Kernel{}, &banger.Error{Kind: banger.ErrConflict, Op: "delete kernel", Subject: name, Err: errors.New("1 VM uses it: devbox")}
	}
	return banger.Kernel{Name: name}, nil
}

func TestKernelRequests(t *testing.T) {
	s := serve(t, os.Getuid())
	ctx := t.Context()
	if kernels, err := s.Kernels(ctx); err != nil || kernels == nil || len(kernels) != 0 {
		t.Errorf("Kernels = %v, %v", kernels, err)
	}
	if offers, err := s.OfferedKernels(ctx); err != nil || len(offers) != 1 || offers[0].Name != "debian" {
		t.Errorf("OfferedKernels = %v, %v", offers, err)
	}
	if kernel, err := s.ShowKernel(ctx, "debian"); err != nil || kernel.Name != "debian" {
		t.Errorf("ShowKernel = %v, %v", kernel, err)
	}
	if _, err := s.ShowKernel(ctx, "none"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("ShowKernel of none: %v", err)
	}
	if kernel, err := s.DeleteKernel(ctx, "debian"); err != nil || kernel.Name != "debian" {
		t.Errorf("DeleteKernel = %v, %v", kernel, err)
	}
	if _, err := s.DeleteKernel(ctx, "used"); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "devbox") {
		t.Errorf("DeleteKernel of a used one: %v", err)
	}
	var told string
	kernel, err := s.ImportKernel(ctx, api.ImportKernelRequest{Name: "mine", KernelSource: banger.KernelSource{Packages: []string{"/a.deb", "/b.deb"}}},
		func(p banger.Progress) { told = p.Text })
	if err != nil || kernel.Name != "mine" || kernel.Source != "/a.deb /b.deb" || told != "importing kernel mine" {
		t.Errorf("ImportKernel = %+v, %v, told %q", kernel, err, told)
	}
	kernel, err = s.PullKernel(ctx, "debian", func(p banger.Progress) { told = p.Text })
	if err != nil || kernel.Name != "debian" || told != "fetching kernel debian" {
		t.Errorf("PullKernel = %+v, %v, told %q", kernel, err, told)
	}
	if _, err := s.PullKernel(ctx, "none", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("PullKernel of none: %v", err)
	}
	for _, tc := range []struct {
		src  banger.KernelSource
		kind error
	}{
		{banger.KernelSource{Dir: "/bad"}, banger.ErrUnsupported},
		{banger.KernelSource{Dir: "there"}, banger.ErrInvalid},
		{banger.KernelSource{Packages: []string{"/a.deb", "b.deb"}}, banger.ErrInvalid},
	} {
		if _, err := s.ImportKernel(ctx, api.ImportKernelRequest{Name: "mine", KernelSource: tc.src}, nil); !errors.Is(err, tc.kind) {
			t.Errorf("ImportKernel of %+v: %v, want %v", tc.src, err, tc.kind)
		}
	}
}
