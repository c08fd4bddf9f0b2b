package config

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"banger"
)

// Source is one way to get the default image.
type Source string

const (
	FromCatalog  Source = "catalog"
	FromRegistry Source = "registry"
	FromPackages Source = "packages"
)

// Size is a number of bytes that is written with a unit: "64GiB".
type Size int64

// UnmarshalText reads what [banger.ParseSize] does.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := banger.ParseSize(string(text))
	*s = Size(n)
	return err
}

// PublicKey is an ed25519 key that is written in base64.
type PublicKey []byte

// UnmarshalText takes what "banger catalog keygen" prints.
func (k *PublicKey) UnmarshalText(text []byte) error {
	key, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("key %.100q: want %d bytes in base64", text, ed25519.PublicKeySize)
	}
	*k = key
	return nil
}

// validate checks what single values do not tell.
func (c *Config) validate() error {
	if err := banger.ValidateImageName(c.Images.Default); err != nil {
		return fmt.Errorf("images.default: %w", err)
	}
	for i, source := range c.Images.Order {
		if source != FromCatalog && source != FromRegistry && source != FromPackages {
			return fmt.Errorf("images.order: %.100q: want one of %s, %s, %s", source, FromCatalog, FromRegistry, FromPackages)
		}
		if slices.Contains(c.Images.Order[:i], source) {
			return fmt.Errorf("images.order: %q stands there twice", source)
		}
	}
	if c.Images.MaxBytes < 1<<20 || c.Images.MaxBytes > 64<<30 || c.Images.MaxEntries < 1 {
		return errors.New("images.max_bytes and images.max_entries: want 1MiB to 64GiB, and at least 1")
	}
	if err := checkURL(c.Catalog.URL, "http", "https"); err != nil && !filepath.IsAbs(c.Catalog.URL) {
		return fmt.Errorf("catalog.url: %w, or an absolute path", err)
	}
	if c.Catalog.URL != "" && len(c.Catalog.Keys) == 0 {
		return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("catalog.keys: a catalog is of use only with the key that signs it"),
			Hint: `keys = ["…"], the line that "banger catalog keygen" printed`}
	}
	if err := checkURL(c.Debian.Mirror, "http", "https", "file"); err != nil {
		return fmt.Errorf("debian.mirror: %w", err)
	}
	if err := checkURL(c.Debian.Proxy, "http", "https"); err != nil {
		return fmt.Errorf("debian.proxy: %w", err)
	}
	if c.Debian.Keyring != "" && !filepath.IsAbs(c.Debian.Keyring) {
		return fmt.Errorf("debian.keyring: %.100q: want an absolute path", c.Debian.Keyring)
	}
	return nil
}

// checkURL takes a URL with one of schemes, or nothing.
func checkURL(text string, schemes ...string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" && u.Scheme != "file" {
		return fmt.Errorf("want a URL with %s://", strings.Join(schemes, ":// or ")) // without the value: a proxy's may hold a password
	}
	return nil
}
