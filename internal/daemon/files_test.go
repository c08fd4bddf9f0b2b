package daemon_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/disk"
	"banger/internal/ext4/write"
	"banger/internal/statedir"
	"banger/internal/transfer"
	"banger/internal/tree"
)

func (v *vms) ReadFiles(ctx context.Context, ref string, use func(context.Context, *disk.FS) error) error {
	if _, err := v.get(ref); err != nil {
		return err
	}
	base, err := os.Open(v.base)
	if err != nil {
		return err
	}
	defer base.Close()
	own, err := os.Open(v.disk)
	if err != nil {
		return err
	}
	defer own.Close()
	f, err := disk.OpenFS(base, 64<<20, own, 64<<20)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if v.cut != nil {
		context.AfterFunc(v.cut, cancel)
	}
	return use(ctx, f)
}

func (v *vms) Lend(ctx context.Context, ref string, progress banger.ProgressFunc, ready func(banger.VM)) error {
	vm, err := v.get(ref)
	if err != nil {
		return err
	}
	progress.Begin("boot", "starting the VM")
	ready(vm)
	<-ctx.Done()
	v.lent <- struct{}{}
	return nil
}

// makeFiles gives the VMs an image and a disk.
func makeFiles(t *testing.T, v *vms) {
	t.Helper()
	dir := t.TempDir()
	v.base = filepath.Join(dir, "base.ext4")
	large := tree.Entry{Path: "large", Kind: tree.File, Size: 16 << 20, Content: io.LimitReader(endless{}, 16<<20)}
	src := tree.Of(tree.Directory("etc", 0o755), tree.Literal("etc/motd", 0o644, []byte("hello")), tree.Entry{Path: "link", Kind: tree.Symlink, Link: "etc"}, tree.Directory("root", 0o700), large)
	if _, err := write.CreateFile(t.Context(), v.base, write.Options{SizeBytes: 64 << 20}, src); err != nil {
		t.Fatal(err)
	}
	home := statedir.VMDir{Path: dir}
	if err := disk.Create(t.Context(), home, disk.Options{SizeBytes: 64 << 20, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	v.disk = home.Disk()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	return copy(p, strings.Repeat("endless", len(p)/7+1)), nil
}

// readFiles receives a tree of the VM devbox.
func (s *served) readFiles(ctx context.Context, path string, follow bool) (*transfer.Incoming, io.Closer, error) {
	stream, err := s.ReadFiles(ctx, "devbox", path, follow)
	if err != nil {
		return nil, nil, err
	}
	in, err := transfer.Receive(stream)
	return in, stream, err
}

func TestReadFiles(t *testing.T) {
	s := serve(t, os.Getuid())
	makeFiles(t, s.vms)
	for _, tc := range []struct {
		path   string
		follow bool
		want   string
		err    error
	}{
		{"/etc", false, "etc/ etc/motd", nil},
		{"/etc/.", false, "./ motd", nil},
		{"/etc/motd", false, "motd", nil},
		{"/link", false, "link", nil},
		{"/link", true, "link/ link/motd", nil},
		{"/link/", false, "link/ link/motd", nil},
		{"/none", false, "", banger.ErrNotFound},
		{"etc", false, "", banger.ErrInvalid},
		{"", false, "", banger.ErrInvalid},
	} {
		in, end, err := s.readFiles(t.Context(), tc.path, tc.follow)
		if !errors.Is(err, tc.err) {
			t.Errorf("%q: %v, want %v", tc.path, err, tc.err)
		}
		if err != nil {
			continue
		}
		var paths []string
		for e, err := range in.Source() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == tree.Dir {
				e.Path += "/"
			}
			paths = append(paths, e.Path)
		}
		if got := strings.Join(paths, " "); got != tc.want {
			t.Errorf("%q gives %q, want %q", tc.path, got, tc.want)
		}
		end.Close()
	}
	if _, err := s.ReadFiles(t.Context(), "nosuch", "/", false); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("of no VM: %v", err)
	}
}

// A client that takes nothing does not hold a VM for which something else is asked.
func TestReadFilesYields(t *testing.T) {
	s := serve(t, os.Getuid())
	makeFiles(t, s.vms)
	cut, cancel := context.WithCancel(t.Context())
	s.vms.cut = cut
	in, end, err := s.readFiles(t.Context(), "/large", false)
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	cancel()
	for e, fault := range in.Source() {
		if err = fault; err == nil {
			_, err = io.Copy(io.Discard, e.Content)
		}
		if err != nil {
			break
		}
	}
	if !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("the rest: %v, want that it was cut off", err)
	}
}

func TestBorrow(t *testing.T) {
	s := serve(t, os.Getuid())
	s.vms.lent = make(chan struct{}, 1)
	var told []string
	vm, giveBack, err := s.Borrow(t.Context(), "devbox", func(p banger.Progress) { told = append(told, p.Stage) })
	if err != nil || vm.Spec.Name != "devbox" || len(told) != 1 {
		t.Fatalf("Borrow = %+v, %v, told %q", vm, err, told)
	}
	select {
	case <-s.vms.lent:
		t.Fatal("given back already")
	default:
	}
	_ = giveBack(t.Context()) // the fake refuses the default timeout of the stop
	<-s.vms.lent
	if _, _, err := s.Borrow(t.Context(), "nosuch", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Borrow of no VM: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Borrow(gone, "devbox", nil); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Borrow interrupted: %v", err)
	}
}
