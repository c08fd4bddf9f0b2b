package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"banger"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// maxZstdWindow bounds what a decoder remembers of its output.
const maxZstdWindow = 128 << 20

// openSource finds out what lies at path. report is told how many bytes have been read.
func openSource(ctx context.Context, path string, staging statedir.ImageDir, report func(int64)) (*source, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &banger.Error{Kind: banger.ErrNotFound, Subject: path, Err: os.ErrNotExist}
	case err != nil:
		return nil, err
	case info.IsDir():
		return openDirectory(ctx, path, report)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { file.SetReadDeadline(time.Unix(1, 0)) }) // a pipe may have nothing to give
	src := &source{report: report, closers: []func() error{file.Close, func() error { stop(); return nil }}, created: time.Unix(0, 0)}
	if err := src.openFile(ctx, &counter{r: file, report: report}, path, staging); err != nil {
		return nil, errors.Join(err, src.close())
	}
	return src, nil
}

func openDirectory(ctx context.Context, path string, report func(int64)) (*source, error) {
	if _, err := os.Stat(filepath.Join(path, "oci-layout")); err == nil {
		src := &source{from: "OCI layout " + path, report: report}
		return src, src.openLayout(ctx, path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, notImage(path, "an empty directory")
	}
	return &source{tree: mine(tree.FromDir(path)), from: "directory " + path, created: time.Unix(0, 0)}, nil
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

// archiveEntry matches what OCI layouts and archives of docker save begin with, and root file systems do not.
var archiveEntry = regexp.MustCompile(`^(\./)?(oci-layout|index\.json|manifest\.json|repositories|blobs/.*|sha256:[0-9a-f]{64}|[0-9a-f]{64}(/.*|\.json|\.tar|\.tar\.gz)?)$`)

func (s *source) openFile(ctx context.Context, r io.Reader, path string, staging statedir.ImageDir) error {
	stream, closer, err := unpack(r)
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
		return notImage(path, "no tar")
	case first != nil && archiveEntry.MatchString(first.Name):
		s.from = "archive " + path
		return s.openArchive(ctx, stream, path, staging)
	}
	s.from = "tar " + path
	s.tree = drained(tree.FromTar(stream, limits), stream)
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

// unpack gives the content of a stream that may be compressed.
func unpack(r io.Reader) (*bufio.Reader, func() error, error) {
	const bufferSize = 128 << 10
	in := bufio.NewReaderSize(r, bufferSize)
	head, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	none := func() error { return nil }
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, err
		}
		return bufio.NewReaderSize(z, bufferSize), z.Close, nil
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(in, zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nil, err
		}
		return bufio.NewReaderSize(z, bufferSize), func() error { z.Close(); return nil }, nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		z, err := xz.NewReader(in)
		if err != nil {
			return nil, nil, err
		}
		return bufio.NewReaderSize(z, bufferSize), none, nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return bufio.NewReaderSize(bzip2.NewReader(in), bufferSize), none, nil
	}
	return in, none, nil
}
