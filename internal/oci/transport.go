package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"banger"
)

const (
	userAgent = "banger"
	// headerTimeout bounds how long a registry may take to begin an answer.
	headerTimeout = 30 * time.Second
	maxCertFile   = 1 << 20
)

// transport gives the way to one registry and to where it redirects.
func (r *Registries) transport(registry string, insecure bool) (http.RoundTripper, error) {
	base := remote.DefaultTransport.(*http.Transport).Clone()
	base.ResponseHeaderTimeout = headerTimeout
	pool, err := certificates(r.CertDirs, registry)
	if err != nil {
		return nil, err
	}
	if pool != nil {
		base.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return encrypted{base, insecure}, nil
}

// certificates adds to the system's authorities those that are kept for this registry; nil when there are none.
func certificates(dirs []string, registry string) (*x509.CertPool, error) {
	var pool *x509.CertPool
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, registry, "*.crt"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := readSmall(file, maxCertFile)
			if err != nil {
				return nil, err
			}
			if pool == nil {
				if pool, err = x509.SystemCertPool(); err != nil {
					return nil, err
				}
			}
			if !pool.AppendCertsFromPEM(text) {
				return nil, banger.Invalidf("%s holds no certificate", file)
			}
		}
	}
	return pool, nil
}

func readSmall(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, banger.Invalidf("%s: want a file of at most %s", path, banger.FormatSize(most))
	}
	return os.ReadFile(path)
}

// encrypted refuses to speak in the clear to another computer unless that was asked for.
type encrypted struct {
	next     http.RoundTripper
	insecure bool
}

func (e encrypted) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !e.insecure && !isLoopback(r.URL.Hostname()) {
		return nil, &banger.Error{Kind: banger.ErrRefused, Op: "ask registry", Subject: r.URL.Host, Err: errors.New("it would be asked without encryption"), Hint: "if that is meant: --insecure"}
	}
	return e.next.RoundTrip(r)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// registryError gives an error of the conversation with a registry its kind.
func registryError(err error) error {
	if banger.KindName(err) != "internal" {
		return err
	}
	kind, hint := banger.ErrUnavailable, "look at the network and at the name of the registry"
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		switch {
		case answer.StatusCode == http.StatusNotFound:
			kind, hint = banger.ErrNotFound, "look at the name and the tag"
		case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
			kind, hint = banger.ErrRefused, "sign in: docker login, or look at the name: registries refuse what they do not have"
		}
	}
	if errors.Is(err, context.Canceled) {
		kind, hint = banger.ErrInterrupted, ""
	}
	return &banger.Error{Kind: kind, Err: err, Hint: hint}
}
