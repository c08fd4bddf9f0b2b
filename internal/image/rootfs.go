package image

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"banger"
	"banger/internal/ext4/read"
	"banger/internal/hostimage"
	"banger/internal/tree"
)

// openRootfs takes the tree of an ext4 image. It must not change meanwhile.
func openRootfs(path string, o opening) (*source, error) {
	img, err := hostimage.Open(path)
	if err != nil {
		return nil, about(path, err)
	}
	return &source{tree: reported(img.Source("."), o.report), from: "ext4 image " + path, closers: []func() error{img.Unchanged, img.Close}}, nil
}

// reported reports the bytes of the files so far.
func reported(src tree.Source, report func(int64)) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		bytes, told := int64(0), int64(0)
		for e, err := range src {
			if !yield(e, err) || err != nil {
				return
			}
			if bytes += e.Size; bytes-told >= reportEvery {
				told = bytes
				report(bytes)
			}
		}
	}
}

// notTar is the error for a file that is neither an image nor a tar: it names what the file is instead.
func notTar(path string, r io.Reader) error {
	plain := notImage(path, "no tar")
	file, ok := r.(*os.File)
	if !ok {
		return plain
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return plain
	}
	if _, err = read.Open(file, info.Size()); err == nil {
		return plain
	}
	return &banger.Error{Kind: banger.ErrInvalid, Subject: path, Err: fmt.Errorf("no tar, and %s", err.Error()), Hint: cmp.Or(banger.HintOf(err), banger.HintOf(plain))}
}
