package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/hostimage"
	"banger/internal/oci"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// opening says how a source is opened.
type opening struct {
	limits  tree.Limits
	staging statedir.ImageDir // where an archive is spooled
	report  func(read int64)
}

// openSource finds out what lies at path.
func openSource(ctx context.Context, path string, o opening) (*source, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &banger.Error{Kind: banger.ErrNotFound, Subject: path, Err: os.ErrNotExist}
	case err != nil:
		return nil, err
	case info.IsDir():
		return openDirectory(ctx, path, o)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && hostimage.Is(file) {
		file.Close()
		return openRootfs(path, o)
	}
	stop := context.AfterFunc(ctx, func() { file.SetReadDeadline(time.Unix(1, 0)) }) // a pipe may have nothing to give
	src := &source{closers: []func() error{file.Close, func() error { stop(); return nil }}}
	if err := src.openFile(ctx, &counter{r: file, report: o.report}, path, o); err != nil {
		return nil, errors.Join(err, src.close())
	}
	return src, nil
}

func openDirectory(ctx context.Context, path string, o opening) (*source, error) {
	if _, err := os.Stat(filepath.Join(path, "oci-layout")); err == nil {
		img, err := oci.OpenLayout(ctx, path, o.oci())
		if err != nil {
			return nil, err
		}
		return imageSource(img, "OCI layout "+path), nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, notImage(path, "an empty directory")
	}
	return &source{tree: mine(reported(tree.FromDir(path), o.report)), from: "directory " + path}, nil
}

func (o opening) oci() oci.Options {
	return oci.Options{Limits: o.limits, Spool: o.staging.Path, Report: func(done, _ int64) { o.report(done) }}
}

// mine gives root what belongs to the user who imports: in the image that user is nobody.
func mine(src tree.Source) tree.Source {
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	return tree.Filter(src, func(e *tree.Entry) bool {
		if e.UID == uid {
			e.UID = 0
		}
		if e.GID == gid {
			e.GID = 0
		}
		return true
	})
}

func (s *source) openFile(ctx context.Context, r *counter, path string, o opening) error {
	stream, closer, err := oci.Unpack(r)
	if err != nil {
		return banger.Invalidf("%s: %w", path, err)
	}
	s.closers = append([]func() error{closer}, s.closers...)
	head, err := stream.Peek(tarBlock)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	first, err := tar.NewReader(bytes.NewReader(head)).Next()
	switch {
	case len(head) == 0:
		return notImage(path, "empty")
	case len(head) < tarBlock, err != nil && !errors.Is(err, io.ErrUnexpectedEOF): // that of an entry with a long name: the rest was not looked at
		return notTar(path, r.r)
	case first != nil && oci.IsArchive(first.Name):
		return s.openArchive(ctx, stream, path, o)
	}
	s.from = "tar " + path
	bounded := oci.Bounded(stream, o.limits)
	s.tree = drained(tree.FromTar(bounded, o.limits), bounded)
	return nil
}

// openArchive keeps the archive in the staging directory as long as it is read: that is done out of order.
func (s *source) openArchive(ctx context.Context, stream io.Reader, path string, o opening) error {
	s.spool = filepath.Join(o.staging.Path, "spool")
	img, err := oci.OpenArchive(ctx, stream, s.spool, o.oci())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.take(img, "archive "+path)
	return nil
}

// drained reads what follows a tar's end mark: who writes into a pipe must not find it closed.
func drained(src tree.Source, rest io.Reader) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for e, err := range src {
			if !yield(e, err) || err != nil {
				return
			}
		}
		if _, err := io.Copy(io.Discard, rest); err != nil {
			yield(tree.Entry{}, err)
		}
	}
}
