package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/download"
)

const (
	indexName       = "index.json"
	signatureEnding = ".sig"
	// attempts bounds how often the index is asked for; each may take attemptTimeout.
	attempts       = 3
	attemptTimeout = time.Minute
	defaultPause   = 200 * time.Millisecond
	maxRedirects   = 5
	copyBuffer     = 1 << 20
	// reportEvery is how many bytes pass between two reports.
	reportEvery = 256 << 10
)

// guarded speaks https, or http to this computer.
type guarded struct{ next http.RoundTripper }

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !isLoopback(r.URL.Hostname()) {
		return nil, &banger.Error{Kind: banger.ErrRefused, Op: "ask", Subject: r.URL.Host, Err: errors.New("it would be asked without encryption"), Hint: "a catalog elsewhere has an https URL"}
	}
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", "banger")
	return g.next.RoundTrip(r)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func newHTTP(cfg Config) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // digests are of what is stored
	transport.ResponseHeaderTimeout = cfg.Idle
	if cfg.Idle == 0 {
		transport.ResponseHeaderTimeout = attemptTimeout
	}
	return &http.Client{Transport: guarded{transport}, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		return nil
	}}
}

// place gives where a file of the catalog is: a URL, or a path on this computer. ref is relative to the index.
func (c *Catalog) place(ref string) (web *url.URL, local string, err error) {
	u, err := url.Parse(ref)
	if err != nil {
		return nil, "", banger.Invalidf("url %.80q", ref)
	}
	if u.IsAbs() {
		return u, "", nil
	}
	if filepath.IsAbs(c.URL) {
		dir := c.URL
		if strings.HasSuffix(dir, ".json") {
			dir = filepath.Dir(dir)
		}
		return nil, filepath.Join(dir, filepath.FromSlash(u.Path)), nil
	}
	base, err := url.Parse(c.URL)
	if err != nil {
		return nil, "", banger.Invalidf("url %.80q", c.URL)
	}
	if !strings.HasSuffix(base.Path, ".json") && !strings.HasSuffix(base.Path, "/") {
		base.Path += "/"
	}
	return base.ResolveReference(u), "", nil
}

// indexRef names the index, or a file beside it of the same name with another ending.
func (c *Catalog) indexRef(name string) string {
	if strings.HasSuffix(c.URL, ".json") {
		return path.Base(c.URL) + strings.TrimPrefix(name, indexName)
	}
	return name
}

// read gives a small file of the catalog. Errors: ErrNotFound; ErrUnavailable; ErrCorrupt for one of more than limit bytes.
func (c *Catalog) read(ctx context.Context, name string, limit int64) ([]byte, error) {
	web, local, err := c.place(c.indexRef(name))
	if err != nil {
		return nil, err
	}
	if web == nil {
		return readLocal(local, limit)
	}
	pause := c.Pause
	if pause == 0 {
		pause = defaultPause
	}
	for try := 1; ; try++ {
		text, err := c.get(ctx, web.String(), limit)
		switch {
		case err == nil:
			return text, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case banger.KindName(err) != "internal":
			return nil, err
		case try == attempts:
			return nil, &banger.Error{Kind: banger.ErrUnavailable, Err: err, Hint: "look at the network and at catalog.url"}
		}
		select {
		case <-time.After(pause << (try - 1)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// get asks once. An error without a kind may not last.
func (c *Catalog) get(ctx context.Context, target string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, banger.Invalidf("url %.80q", target)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	switch code := answer.StatusCode; {
	case code == http.StatusOK:
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return nil, fmt.Errorf("%s: the server answered %s", target, answer.Status)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return nil, &banger.Error{Kind: banger.ErrRefused, Op: target, Err: fmt.Errorf("the server answered %s", answer.Status)}
	default:
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: target, Err: fmt.Errorf("the server answered %s", answer.Status), Hint: "look at catalog.url"}
	}
	return readAll(answer.Body, target, limit)
}

func readLocal(name string, limit int64) ([]byte, error) {
	f, err := openLocal(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, name, limit)
}

// openLocal opens a regular file of a catalog on this computer.
func openLocal(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for its writer
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Err: err, Hint: "look at catalog.url"}
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), &banger.Error{Kind: banger.ErrCorrupt, Op: "read", Subject: name, Err: errors.New("it is no regular file")})
	}
	return f, nil
}

func readAll(r io.Reader, name string, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(text)) > limit {
		return nil, &banger.Error{Kind: banger.ErrCorrupt, Op: "read", Subject: name, Err: fmt.Errorf("it has more than %s", banger.FormatSize(limit))}
	}
	return text, err
}

// Fetch gives a bundle, whole and with the digest that the index says. What came before a connection was cut is gone on with, by a
// later call too. The file has no name any more; the caller closes it.
// Errors: ErrCorrupt for another size or digest; ErrRefused; ErrUnavailable without server or disk space.
func (c *Catalog) Fetch(ctx context.Context, b banger.Bundle, report func(done int64)) (*os.File, error) {
	told := int64(0)
	f, err := c.fetch(ctx, b, func(done int64) {
		if done-told >= reportEvery || done < told || done == b.SizeBytes {
			told = done
			report(done)
		}
	})
	if err == nil {
		return f, nil
	}
	err = banger.SpaceError(err, c.Cache)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, banger.ErrNotFound):
		err = &banger.Error{Kind: banger.ErrUnavailable, Err: err, Hint: "the catalog names a bundle that is not there: tell who publishes it"}
	case banger.KindName(err) == "internal":
		err = &banger.Error{Kind: banger.ErrUnavailable, Err: err}
	}
	return nil, &banger.Error{Op: "bundle", Subject: b.Name, Err: err}
}

func (c *Catalog) fetch(ctx context.Context, b banger.Bundle, report func(done int64)) (*os.File, error) {
	if err := os.MkdirAll(c.Cache, 0o700); err != nil {
		return nil, err
	}
	target := filepath.Join(c.Cache, b.Digest)
	release, err := c.claim(ctx, target)
	if err != nil {
		return nil, err
	}
	defer release()
	web, local, err := c.place(b.URL)
	if err != nil {
		return nil, err
	}
	if web == nil {
		return copyLocal(ctx, local, target, b, report)
	}
	client := download.Client{HTTP: c.http, Idle: c.Idle, Pause: c.Pause}
	err = client.Fetch(ctx, download.File{URL: web.String(), SizeBytes: b.SizeBytes, SHA256: b.Digest, Path: target}, report)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) { // what can't be ended frees its place
		err = errors.Join(err, os.Remove(target+download.Partial))
	}
	if err != nil {
		return nil, err
	}
	return openUnnamed(target)
}

// copyLocal copies a file, which its owner may change meanwhile, and checks the copy.
func copyLocal(ctx context.Context, from, to string, b banger.Bundle, report func(done int64)) (f *os.File, err error) {
	in, err := openLocal(from)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = os.Remove(to) // nothing to clean up then
	sum := sha256.New()
	buffer := make([]byte, copyBuffer)
	var size int64
	for err == nil && size <= b.SizeBytes {
		if err = ctx.Err(); err != nil {
			break
		}
		var n int
		n, err = in.Read(buffer)
		sum.Write(buffer[:n])
		size += int64(n)
		if _, writeErr := out.Write(buffer[:n]); writeErr != nil {
			err = writeErr
		}
		report(min(size, b.SizeBytes))
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && (size != b.SizeBytes || hex.EncodeToString(sum.Sum(nil)) != b.Digest) {
		err = &banger.Error{Kind: banger.ErrCorrupt, Op: "read", Subject: from, Err: errors.New("its size or digest is not what the index says")}
	}
	if err == nil {
		_, err = out.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

func openUnnamed(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
