package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
)

// dockerImage is an entry of manifest.json
// (https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format).
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// section is where a file is in an archive.
type section struct{ offset, size int64 }

// openDockerSave takes the image of an archive that docker save made.
func openDockerSave(ctx context.Context, name string, opts Options) (img *Image, err error) {
	archive, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			archive.Close()
		}
	}()
	files, err := sectionsOf(archive)
	if err != nil {
		return nil, err
	}
	var images []dockerImage
	text, err := readSection(archive, files, "manifest.json")
	if err == nil {
		err = json.Unmarshal(text, &images)
	}
	if err != nil {
		return nil, banger.Invalidf("manifest.json: %w", err)
	}
	if len(images) != 1 {
		var tags []string
		for _, i := range images {
			tags = append(tags, i.RepoTags...)
		}
		return nil, banger.Invalidf("the archive holds %d images (%.500q): save one at a time", len(images), tags)
	}
	cfg, err := dockerConfig(archive, files, images[0].Config)
	if err != nil {
		return nil, err
	}
	count := &counter{report: opts.Report}
	var layers []layer
	for _, name := range images[0].Layers {
		at, ok := files[path.Clean(name)]
		if !ok {
			return nil, banger.Invalidf("the archive has no layer %.200q", name)
		}
		layers = append(layers, layer{name: fmt.Sprintf("%.200q", name), open: func(context.Context) (io.ReadCloser, error) {
			return count.over(io.NopCloser(io.NewSectionReader(archive, at.offset, at.size))), nil
		}})
	}
	if img, err = openLayers(ctx, cfg, opts, layers); err == nil {
		img.closers = append(img.closers, archive.Close)
	}
	return img, err
}

// sectionsOf finds the files of a plain tar. A link, which stands for a layer that comes twice, is where its file is.
func sectionsOf(archive *os.File) (map[string]section, error) {
	files, links := map[string]section{}, map[string]string{}
	for r := tar.NewReader(archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, banger.Invalidf("archive: %w", err)
		}
		if len(files)+len(links) >= maxBlobs {
			return nil, banger.Invalidf("archive: more than %d files", maxBlobs)
		}
		name := path.Clean(header.Name)
		switch header.Typeflag {
		case tar.TypeReg:
			offset, err := archive.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			files[name] = section{offset, header.Size}
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), header.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(header.Linkname)
		}
	}
	for name, target := range links {
		if at, ok := files[target]; ok {
			files[name] = at
		}
	}
	return files, nil
}

func readSection(archive io.ReaderAt, files map[string]section, name string) ([]byte, error) {
	at, ok := files[path.Clean(name)]
	if !ok {
		return nil, fmt.Errorf("the archive has no %.200q", name)
	}
	if at.size > maxConfig {
		return nil, fmt.Errorf("%.200q has more than %s", name, banger.FormatSize(maxConfig))
	}
	text := make([]byte, at.size)
	_, err := archive.ReadAt(text, at.offset)
	return text, err
}

var digestInName = regexp.MustCompile(`[0-9a-f]{64}`)

// dockerConfig reads an image's configuration, whose name holds its digest.
func dockerConfig(archive io.ReaderAt, files map[string]section, name string) (*v1.ConfigFile, error) {
	text, err := readSection(archive, files, name)
	if err != nil {
		return nil, banger.Invalidf("configuration: %w", err)
	}
	sum := sha256.Sum256(text)
	if want := digestInName.FindString(name); want != "" && want != hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("%w: the configuration has digest %s, want %s", banger.ErrCorrupt, hex.EncodeToString(sum[:]), want)
	}
	cfg, err := v1.ParseConfigFile(bytes.NewReader(text))
	if err != nil {
		return nil, banger.Invalidf("configuration: %w", err)
	}
	return cfg, nil
}
