package daemon_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"banger"
	"banger/internal/daemon"
)

// catalogOf stands for a catalog with one image, and for the managers that make bundles.
func catalogOf() daemon.Catalog {
	return daemon.Catalog{
		Index: func(context.Context) (banger.Catalog, error) {
			return banger.Catalog{Serial: 7, Images: []banger.CatalogImage{{Bundle: banger.Bundle{Name: "app"}}}}, nil
		},
		BundleImage: func(_ context.Context, ref, dir string, progress banger.ProgressFunc) (banger.CatalogImage, error) {
			progress.Report(banger.Progress{Stage: "bundle", Text: "packing image " + ref})
			if ref != "app" {
				return banger.CatalogImage{}, &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: ref}
			}
			return banger.CatalogImage{Bundle: banger.Bundle{Name: ref, URL: dir}}, nil
		},
		BundleKernel: func(_ context.Context, name, dir string, _ banger.ProgressFunc) (banger.CatalogKernel, error) {
			return banger.CatalogKernel{Bundle: banger.Bundle{Name: name, URL: dir}}, nil
		},
	}
}

func TestCatalogRequests(t *testing.T) {
	s := serve(t, os.Getuid())
	ctx := t.Context()
	if index, err := s.Catalog(ctx); err != nil || index.Serial != 7 || len(index.Images) != 1 {
		t.Errorf("Catalog = %+v, %v", index, err)
	}
	var told string
	if entry, err := s.BundleImage(ctx, "app", "/there", func(p banger.Progress) { told = p.Text }); err != nil || entry.Name != "app" || entry.URL != "/there" || told != "packing image app" {
		t.Errorf("BundleImage = %+v, %v, told %q", entry, err, told)
	}
	if _, err := s.BundleImage(ctx, "nosuch", "/there", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("BundleImage of none: %v", err)
	}
	if entry, err := s.BundleKernel(ctx, "debian", "/there", nil); err != nil || entry.Name != "debian" || entry.URL != "/there" {
		t.Errorf("BundleKernel = %+v, %v", entry, err)
	}
	_, imageErr := s.BundleImage(ctx, "app", "there", nil)
	_, kernelErr := s.BundleKernel(ctx, "debian", "there", nil)
	if !errors.Is(imageErr, banger.ErrInvalid) || !errors.Is(kernelErr, banger.ErrInvalid) {
		t.Errorf("to a relative path: %v, %v", imageErr, kernelErr)
	}
}
