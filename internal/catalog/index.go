package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"banger"
)

const (
	// version of the index that this package reads and writes.
	version = 1
	// maxIndex bounds an index file.
	maxIndex       = 8 << 20
	maxEntries     = 10_000
	maxBundle      = 1 << 40
	maxDescription = 1000
	maxURL         = 2000
)

var (
	digestPattern  = banger.Pattern(`^[0-9a-f]{64}$`)
	versionPattern = banger.Pattern(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
)

// parseIndex reads an index whose signature holds. Errors: ErrUnsupported for a later version; ErrCorrupt.
func parseIndex(text []byte) (banger.Catalog, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return banger.Catalog{}, corrupt(err)
	}
	if head.Version != version {
		return banger.Catalog{}, &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf("its index has version %d, this banger knows %d", head.Version, version), Hint: "a newer banger may know it"}
	}
	var index banger.Catalog
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&index); err != nil {
		return banger.Catalog{}, corrupt(err)
	}
	if dec.More() {
		return banger.Catalog{}, corrupt(errors.New("something follows the index"))
	}
	if err := validate(index); err != nil {
		return banger.Catalog{}, corrupt(err)
	}
	return index, nil
}

func corrupt(err error) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Op: "catalog index", Err: err}
}

// validate checks every field: an index is signed, but may be signed by mistake.
func validate(index banger.Catalog) error {
	switch {
	case index.Serial < 1:
		return fmt.Errorf("serial %d", index.Serial)
	case index.Created.IsZero() || !index.Expires.After(index.Created):
		return fmt.Errorf("created %s, expires %s", index.Created, index.Expires)
	case len(index.Images)+len(index.Kernels) > maxEntries:
		return fmt.Errorf("%d entries", len(index.Images)+len(index.Kernels))
	}
	images, kernels := map[string]bool{}, map[string]bool{}
	for _, e := range index.Images {
		if err := validateBundle(e.Bundle, banger.ValidateImageName, images); err != nil {
			return fmt.Errorf("image %.80q: %w", e.Name, err)
		}
		if e.Boot != banger.BootAgent && e.Boot != banger.BootSystem || !digestPattern().MatchString(e.Key) || e.Kernel != "" && banger.ValidateKernelName(e.Kernel) != nil {
			return fmt.Errorf("image %.80q: boot %.80q, key %.80q, kernel %.80q", e.Name, e.Boot, e.Key, e.Kernel)
		}
	}
	for _, e := range index.Kernels {
		if err := validateBundle(e.Bundle, banger.ValidateKernelName, kernels); err != nil {
			return fmt.Errorf("kernel %.80q: %w", e.Name, err)
		}
		if !versionPattern().MatchString(e.Version) {
			return fmt.Errorf("kernel %.80q: version %.80q", e.Name, e.Version)
		}
	}
	return nil
}

func validateBundle(b banger.Bundle, validateName func(string) error, names map[string]bool) error {
	switch {
	case validateName(b.Name) != nil:
		return errors.New("it has no valid name")
	case names[b.Name]:
		return errors.New("it is there twice")
	case !digestPattern().MatchString(b.Digest):
		return fmt.Errorf("digest %.80q: want 64 hexadecimal digits", b.Digest)
	case b.SizeBytes < 1 || b.SizeBytes > maxBundle:
		return fmt.Errorf("size %d", b.SizeBytes)
	case len(b.Description) > maxDescription || !utf8.ValidString(b.Description):
		return errors.New("its description is too long")
	}
	names[b.Name] = true
	return validateURL(b.URL)
}

// validateURL takes an absolute URL, or a path that stays below the index.
func validateURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || text == "" || len(text) > maxURL || strings.Contains(text, "\\") {
		return fmt.Errorf("url %.80q", text)
	}
	if u.IsAbs() {
		if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
			return fmt.Errorf("url %.80q: want https://, or a path below the index", text)
		}
		return nil
	}
	if u.Host != "" || u.RawQuery != "" || u.Fragment != "" || !filepath.IsLocal(u.Path) || slices.Contains(strings.Split(u.Path, "/"), "..") {
		return fmt.Errorf("url %.80q: want https://, or a path below the index", text)
	}
	return nil
}

// encodeIndex is the inverse of parseIndex.
func encodeIndex(index banger.Catalog) ([]byte, error) {
	if err := validate(index); err != nil {
		return nil, &banger.Error{Kind: banger.ErrInvalid, Op: "catalog index", Err: err}
	}
	text, err := json.MarshalIndent(index, "", "\t")
	if err == nil && len(text) >= maxIndex {
		err = banger.Invalidf("a catalog index of %s: at most %s", banger.FormatSize(int64(len(text))), banger.FormatSize(maxIndex))
	}
	return append(text, '\n'), err
}
