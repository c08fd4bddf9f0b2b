// Package catalog reads and makes signed catalogs of ready images and kernels. docs/catalog.md describes the files.
//
// An index is verified before it is parsed, and a bundle is read only when its size and digest are what the index says. index.go holds
// the index, sign.go keys and signatures, fetch.go how files come, bundle.go what is in a bundle, publish.go the other side.
package catalog

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/download"
)

// Config says where a catalog is and whose word counts.
type Config struct {
	URL   string              // of the index or its directory, or an absolute path of either; empty: there is no catalog
	Keys  []ed25519.PublicKey // one of them must have signed the index
	Seen  string              // path of the file that remembers the newest serial of each catalog
	Cache string              // directory of bundles that are coming
	Now   func() time.Time    // optional: time.Now
	Idle  time.Duration       // how long a server may give nothing; 0: a minute
	Pause time.Duration       // before the first repetition; 0: 200 ms
}

// Catalog is one catalog. It is safe for concurrent use.
type Catalog struct {
	Config
	http *http.Client

	mu     sync.Mutex
	claims map[string]chan struct{} // closed when the work on this file ends
}

// New makes a Catalog. It does no I/O.
func New(cfg Config) *Catalog {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Catalog{Config: cfg, http: newHTTP(cfg), claims: map[string]chan struct{}{}}
}

// Configured tells whether there is a catalog.
func (c *Catalog) Configured() bool { return c != nil && c.URL != "" }

// Index gets the catalog's index. Errors: ErrNotFound when no catalog is configured; ErrUnavailable when it does not answer;
// ErrCorrupt for one that was changed after it was signed; ErrRefused for one that is signed by another key, has expired or is older than one
// that was seen before; ErrUnsupported for one of a later version.
func (c *Catalog) Index(ctx context.Context) (banger.Catalog, error) {
	if !c.Configured() {
		return banger.Catalog{}, &banger.Error{Kind: banger.ErrNotFound, Op: "catalog", Err: errors.New("none is configured"), Hint: "catalog.url and catalog.keys in the configuration name one"}
	}
	index, err := c.index(ctx)
	if err != nil {
		return banger.Catalog{}, &banger.Error{Op: "catalog " + c.URL, Err: err}
	}
	return index, nil
}

func (c *Catalog) index(ctx context.Context) (banger.Catalog, error) {
	text, err := c.verified(ctx)
	for try := 1; try < attempts && errors.Is(err, errOtherContent); try++ { // it was published while we read
		text, err = c.verified(ctx)
	}
	if err != nil {
		return banger.Catalog{}, err
	}
	index, err := parseIndex(text)
	if err != nil {
		return banger.Catalog{}, err
	}
	if now := c.Now(); !now.Before(index.Expires) {
		return banger.Catalog{}, &banger.Error{Kind: banger.ErrRefused, Err: fmt.Errorf("its index expired at %s", index.Expires.Format(time.RFC3339)),
			Hint: "its publisher has to sign it anew; or this computer's clock is wrong: it says " + now.UTC().Format(time.RFC3339)}
	}
	return index, c.remember(ctx, index.Serial, text)
}

// verified reads an index whose signature holds.
func (c *Catalog) verified(ctx context.Context) ([]byte, error) {
	text, err := c.read(ctx, indexName, maxIndex)
	if err != nil {
		return nil, err
	}
	signatureText, err := c.read(ctx, indexName+signatureEnding, maxSignatureFile)
	if err != nil {
		return nil, err
	}
	signatures, err := parseSignatures(signatureText)
	if err != nil {
		return nil, err
	}
	return text, verify(text, signatures, c.Keys)
}

// Image gives the entry of an image. Errors: ErrNotFound; those of Index.
func (c *Catalog) Image(ctx context.Context, name string) (banger.CatalogImage, error) {
	index, err := c.Index(ctx)
	if err != nil {
		return banger.CatalogImage{}, err
	}
	var names []string
	for _, e := range index.Images {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return banger.CatalogImage{}, c.unknown("image", name, names)
}

// Kernel gives the entry of a kernel. Errors: ErrNotFound; those of Index.
func (c *Catalog) Kernel(ctx context.Context, name string) (banger.CatalogKernel, error) {
	index, err := c.Index(ctx)
	if err != nil {
		return banger.CatalogKernel{}, err
	}
	var names []string
	for _, e := range index.Kernels {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return banger.CatalogKernel{}, c.unknown("kernel", name, names)
}

func (c *Catalog) unknown(what, name string, names []string) error {
	return &banger.Error{Kind: banger.ErrNotFound, Op: what, Subject: fmt.Sprintf("%.100q", name), Err: fmt.Errorf("it is not in the catalog %s", c.URL), Hint: banger.DidYouMean(name, names)}
}

// CleanUp removes bundles that came whole when banger was cut off. No Fetch may run. What came in part stays, for the next Fetch.
func (c *Catalog) CleanUp() error {
	entries, err := os.ReadDir(c.Cache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), download.Partial) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(c.Cache, entry.Name())))
		}
	}
	return err
}

// Prune removes what has come in part of bundles that nobody is fetching, and gives digests and sizes in bytes. With dryRun it only
// tells.
func (c *Catalog) Prune(dryRun bool) (pruned map[string]int64, err error) {
	entries, err := os.ReadDir(c.Cache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	now, cancel := context.WithCancel(context.Background())
	cancel() // a claim that another has is not waited for
	pruned = map[string]int64{}
	for _, entry := range entries {
		digest, ok := strings.CutSuffix(entry.Name(), download.Partial)
		release, busy := c.claim(now, filepath.Join(c.Cache, digest))
		if busy != nil {
			continue
		}
		info, statErr := entry.Info()
		if ok && statErr == nil {
			pruned[digest] = info.Sys().(*syscall.Stat_t).Blocks * 512
			if !dryRun {
				err = errors.Join(err, os.Remove(filepath.Join(c.Cache, entry.Name())))
			}
		}
		release()
	}
	return pruned, err
}

// seen is what is remembered of one catalog.
type seen struct {
	Serial int64  `json:"serial"`
	SHA256 string `json:"sha256"` // of the index
}

// remember refuses an index that is older than one seen before, durably.
func (c *Catalog) remember(ctx context.Context, serial int64, text []byte) error {
	release, err := c.claim(ctx, c.Seen)
	if err != nil {
		return err
	}
	defer release()
	all := map[string]seen{}
	old, err := os.ReadFile(c.Seen)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(old, &all); err != nil {
			return &banger.Error{Kind: banger.ErrCorrupt, Op: "read", Subject: c.Seen, Err: err, Hint: "remove " + c.Seen + ": it holds the newest serial of each catalog, so that no older one is taken"}
		}
	}
	sum := sha256.Sum256(text)
	now, last := seen{serial, hex.EncodeToString(sum[:])}, all[c.URL]
	refuse := func(format string, args ...any) error {
		return &banger.Error{Kind: banger.ErrRefused, Err: fmt.Errorf(format, args...),
			Hint: "somebody may show you an old state of it; if its publisher began anew, remove " + c.Seen}
	}
	switch {
	case serial < last.Serial:
		return refuse("its index was rolled back: it has serial %d, %d was seen before", serial, last.Serial)
	case serial == last.Serial && now != last:
		return refuse("its index has serial %d, as one with other content that was seen before", serial)
	case now == last:
		return nil
	}
	all[c.URL] = now
	next, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return banger.SpaceError(atomicfile.Write(c.Seen, append(next, '\n'), 0o600), c.Seen)
}

// claim waits until nobody else works on a file.
func (c *Catalog) claim(ctx context.Context, path string) (release func(), err error) {
	for {
		c.mu.Lock()
		claimed, taken := c.claims[path]
		if !taken {
			claimed = make(chan struct{})
			c.claims[path] = claimed
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.claims, path)
				c.mu.Unlock()
				close(claimed)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-claimed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
