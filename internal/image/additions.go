package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/internal/download"
	"banger/internal/oci"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// fetchIdle is how long a server of a definition's files may give nothing.
const fetchIdle = 20 * time.Second

// additions gives what a definition changes in the tree that the packages make, and adds that to sum. Files that have to be fetched are in
// the staging directory afterwards; missing are those that may be left out and did not come.
func (m *Manager) additions(ctx context.Context, def definition, staging statedir.ImageDir, sum hash.Hash, progress banger.ProgressFunc) (src tree.Source, missing []string, err error) {
	var sources []tree.Source
	var used []addition
	for _, path := range def.Remove {
		sources = append(sources, tree.Of(tree.Entry{Path: inside(path), Kind: tree.Delete}))
	}
	for i, f := range def.Files {
		if f.URL == "" {
			sources, used = append(sources, tree.Of(f.entry())), append(used, f)
			continue
		}
		fetched := filepath.Join(staging.Path, fmt.Sprintf("fetched-%d", i))
		err := fetch(ctx, f, fetched, progress)
		switch {
		case err == nil:
			sources, used = append(sources, f.from(fetched)), append(used, f)
		case f.Optional && ctx.Err() == nil && (errors.Is(err, banger.ErrUnavailable) || errors.Is(err, banger.ErrNotFound)):
			missing = append(missing, f.Path)
			progress.Begin("missing", fmt.Sprintf("%s is left out: %v", f.Path, err))()
		default:
			return nil, nil, err
		}
	}
	if len(sources) == 0 {
		return tree.Of(), nil, nil
	}
	return tree.Concat(sources...), missing, json.NewEncoder(sum).Encode([]any{def.Remove, used})
}

func inside(path string) string { return strings.TrimPrefix(path, "/") }

// entry is the file without the content behind a URL.
func (f addition) entry() tree.Entry {
	e := tree.Entry{Path: inside(f.Path), Kind: tree.File, Mode: f.Mode}
	if e.Mode == 0 {
		e.Mode = 0o644
	}
	switch {
	case f.Link != "":
		e.Kind, e.Link = tree.Symlink, f.Link
	case f.Content != nil:
		e.Size, e.Content = int64(len(*f.Content)), strings.NewReader(*f.Content)
	}
	return e
}

func fetch(ctx context.Context, f addition, to string, progress banger.ProgressFunc) error {
	text := "fetching " + f.Path
	end := progress.Begin("download", text)
	defer end()
	client := download.Client{HTTP: &http.Client{}, Idle: fetchIdle}
	return client.Fetch(ctx, download.File{URL: f.URL, SizeBytes: f.Size, SHA256: f.SHA256, Path: to}, func(done int64) {
		progress.Report(banger.Progress{Stage: "download", Text: text, Bytes: done, Total: f.Size})
	})
}

// removeFetched removes what additions fetched: it is in the base.
func removeFetched(staging statedir.ImageDir) error {
	fetched, err := filepath.Glob(filepath.Join(staging.Path, "fetched-*"))
	for _, path := range fetched {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// from gives the entry with the content of a file that was fetched, or of one in it.
func (f addition) from(fetched string) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		file, err := os.Open(fetched)
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		defer file.Close()
		e := f.entry()
		if f.Member == "" {
			e.Size, e.Content = f.Size, file
			yield(e, nil)
			return
		}
		if err := f.unpack(file, func(size int64, content io.Reader) {
			e.Size, e.Content = size, content
			yield(e, nil)
		}); err != nil {
			yield(tree.Entry{}, &banger.Error{Kind: banger.ErrInvalid, Op: "image file", Subject: f.Path, Err: err})
		}
	}
}

// unpack finds the member in a tar.
func (f addition) unpack(file *os.File, found func(size int64, content io.Reader)) error {
	stream, closer, err := oci.Unpack(file)
	if err != nil {
		return err
	}
	defer closer()
	for e, err := range tree.FromTar(stream, defaultLimits) {
		if err != nil {
			return err
		}
		if e.Path == f.Member && e.Kind == tree.File {
			found(e.Size, e.Content)
			return nil
		}
	}
	return fmt.Errorf("%s has no file %s", f.URL, f.Member)
}
