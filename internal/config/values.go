package config

import (
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger"
)

// Source is one way to get the default image.
type Source string

const (
	FromCatalog  Source = "catalog"
	FromRegistry Source = "registry"
	FromPackages Source = "packages"
)

// Publish says when a port of a VM is opened.
type Publish string

const (
	PublishOnNeed Publish = "need" // when somebody asks for ports or looks a name up
	PublishAll    Publish = "auto" // as soon as somebody listens in the VM
)

// Size is a number of bytes that is written with a unit: "64GiB".
type Size int64

// UnmarshalText reads what [banger.ParseSize] does.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := banger.ParseSize(string(text))
	*s = Size(n)
	return err
}

// Span is a time that is written as "90m", "2h" or "7d".
type Span time.Duration

// UnmarshalText reads what [banger.ParseDuration] does.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := banger.ParseDuration(string(text))
	*s = Span(d)
	return err
}

// String writes it as a person does.
func (s Size) String() string { return banger.FormatSize(int64(s)) }

// Share is a part of something: so many percent of it, or so many bytes. The zero value is none.
type Share struct {
	Percent int
	Bytes   int64
}

// maxPercent is far more than is of use.
const maxPercent = 1000

// UnmarshalText reads "80%" or what [banger.ParseSize] does.
func (s *Share) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	if !ok {
		bytes, err := banger.ParseSize(string(text))
		*s = Share{Bytes: bytes}
		return err
	}
	percent, err := strconv.Atoi(number)
	if err != nil || percent < 1 || percent > maxPercent {
		return banger.Invalidf("%.40q: want 1%% to %d%%, or a size such as 12G", text, maxPercent)
	}
	*s = Share{Percent: percent}
	return nil
}

// Of gives the part of all.
func (s Share) Of(all int64) int64 {
	if s.Percent > 0 {
		return all / 100 * int64(s.Percent)
	}
	return s.Bytes
}

func (s Share) String() string {
	if s.Percent > 0 {
		return strconv.Itoa(s.Percent) + "%"
	}
	return banger.FormatSize(s.Bytes)
}

// String writes it as a person does.
func (s Span) String() string { return banger.FormatDuration(time.Duration(s)) }

// String is the key in base64.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k) }

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
	if c.Ports.Publish != PublishOnNeed && c.Ports.Publish != PublishAll {
		return fmt.Errorf("ports.publish: %.100q: want %s or %s", c.Ports.Publish, PublishOnNeed, PublishAll)
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
	if idle := time.Duration(c.VMDefaults.AutoStopIdle); idle != 0 && idle < banger.MinStopIdle {
		return fmt.Errorf("vm_defaults.auto_stop_idle: want at least %s, or 0 for never", banger.FormatDuration(banger.MinStopIdle))
	}
	if err := c.validateFileSync(); err != nil {
		return err
	}
	return c.VMDefaults.validate()
}

// validateFileSync looks at no file: one that is missing now may be there when a VM starts.
func (c *Config) validateFileSync() error {
	if len(c.FileSync) == 0 {
		return nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return fmt.Errorf("file_sync: %w", err)
	}
	if len(c.FileSync) > banger.MaxFileSync {
		return fmt.Errorf("file_sync: %d entries, want at most %d", len(c.FileSync), banger.MaxFileSync)
	}
	places := map[string]int{}
	for i, f := range c.FileSync {
		_, guest, err := f.Paths(home)
		if first := places[guest]; err == nil && first > 0 {
			err = fmt.Errorf("file_sync[%d] has the same place in the VM, %s", first, guest)
		}
		if err != nil {
			return fmt.Errorf("file_sync[%d]: %w", i+1, err)
		}
		places[guest] = i + 1
	}
	return nil
}

// validate wants sizes that a VM can have, or 0 for those of the host.
func (d VMDefaults) validate() error {
	spec := banger.VMSpec{Name: "x", Image: "x", VCPU: cmp.Or(d.VCPU, 1), MemoryMiB: cmp.Or(int(d.Memory>>20), banger.MinMemoryMiB), DiskBytes: int64(d.DiskSize)}
	if d.Memory != 0 && d.Memory>>20 == 0 {
		spec.MemoryMiB = 0
	}
	if err := spec.Validate(); err != nil {
		return fmt.Errorf("vm_defaults: %w", err)
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
