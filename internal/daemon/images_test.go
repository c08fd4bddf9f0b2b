package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"banger"
	"banger/api"
)

func (v *vms) ShowImage(_ context.Context, ref string) (api.ImageDetail, error) {
	image, err := imageList{}.Resolve(ref)
	return api.ImageDetail{Image: image, VMs: []string{"devbox"}}, err
}

func (v *vms) PruneImages(_ context.Context, all, dryRun bool) (api.Pruned, error) {
	if !all || !dryRun {
		return api.Pruned{}, &banger.Error{Kind: banger.ErrConflict, Op: "prune images"}
	}
	return api.Pruned{Items: []api.PrunedItem{{Name: "old", Bytes: 7}}, Bytes: 7}, nil
}

func (imageList) Register(_ context.Context, req api.RegisterRequest, _ banger.ProgressFunc) (banger.Image, error) {
	return banger.Image{Name: req.Name, Registered: &banger.HostFile{Path: req.Rootfs}}, nil
}

func (imageList) Promote(_ context.Context, ref string, _ banger.ProgressFunc) (banger.Image, error) {
	return imageList{}.Resolve(ref)
}

// Export gives half a tar of "torn".
func (imageList) Export(_ context.Context, ref string, w io.Writer) error {
	switch ref {
	case "none":
		return &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: ref}
	case "torn":
		if _, err := w.Write(bytes.Repeat([]byte("x"), 100_000)); err != nil {
			return err
		}
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "export image", Subject: ref, Err: errors.New("inode 7"), Hint: "import it again"}
	}
	_, err := w.Write(bytes.Repeat([]byte("tar"), 1_000_000))
	return err
}

func (imageList) PruneCache(dryRun bool) (api.Pruned, error) {
	if !dryRun {
		return api.Pruned{}, errors.New("a layer")
	}
	return api.Pruned{Items: []api.PrunedItem{}, Bytes: 3}, nil
}

func TestImageRequests(t *testing.T) {
	s := serve(t, os.Getuid())
	ctx := t.Context()
	if image, err := s.ShowImage(ctx, "debian"); err != nil || len(image.VMs) != 1 {
		t.Errorf("ShowImage = %+v, %v", image, err)
	}
	image, err := s.RegisterImage(ctx, api.RegisterRequest{Name: "mine", Rootfs: "/mine.ext4"}, nil)
	if err != nil || image.Name != "mine" || image.Registered.Path != "/mine.ext4" {
		t.Errorf("RegisterImage = %+v, %v", image, err)
	}
	for _, req := range []api.RegisterRequest{{Name: "mine"}, {Name: "mine", Rootfs: "mine.ext4"}, {Name: "mine", Rootfs: "/mine.ext4", WorkSeed: "../seed"}} {
		if _, err := s.RegisterImage(ctx, req, nil); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("RegisterImage(%+v) = %v", req, err)
		}
	}
	if image, err := s.PromoteImage(ctx, "debian", nil); err != nil || image.Name != "debian" {
		t.Errorf("PromoteImage = %+v, %v", image, err)
	}
	if _, err := s.PromoteImage(ctx, "none", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("PromoteImage of none: %v", err)
	}
	if pruned, err := s.PruneImages(ctx, api.PruneRequest{All: true, DryRun: true}); err != nil || len(pruned.Items) != 1 || pruned.Bytes != 7 {
		t.Errorf("PruneImages = %+v, %v", pruned, err)
	}
	if pruned, err := s.PruneCache(ctx, true); err != nil || pruned.Bytes != 3 {
		t.Errorf("PruneCache = %+v, %v", pruned, err)
	}
	if _, err := s.PruneCache(ctx, false); err == nil {
		t.Error("PruneCache: no error")
	}
	if _, err := s.PruneImages(ctx, api.PruneRequest{}); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("PruneImages while a VM is made: %v", err)
	}
}

func TestExport(t *testing.T) {
	s := serve(t, os.Getuid())
	var out bytes.Buffer
	if err := s.ExportImage(t.Context(), "debian", &out); err != nil || out.String() != strings.Repeat("tar", 1_000_000) {
		t.Errorf("ExportImage: %d bytes, %v", out.Len(), err)
	}
	if err := s.ExportImage(t.Context(), "none", io.Discard); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("ExportImage of none: %v", err)
	}
	if err := s.ExportImage(t.Context(), "torn", io.Discard); !errors.Is(err, banger.ErrCorrupt) || banger.HintOf(err) != "import it again" {
		t.Errorf("ExportImage of a damaged one: %v", err)
	}
	full := errors.New("no space left on device")
	if err := s.ExportImage(t.Context(), "debian", failingWriter{full}); !errors.Is(err, full) {
		t.Errorf("ExportImage to a full disk: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
