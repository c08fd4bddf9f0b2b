package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"banger"
	"banger/internal/download"
	"banger/internal/tree"
)

// layersAtOnce is how many layers of an image come at the same time.
const layersAtOnce = 4

// Registries gives images of registries.
type Registries struct {
	CertDirs []string      // where certificate authorities of single registries are: DIR/HOST[:PORT]/*.crt
	Idle     time.Duration // how long a registry or a credential helper may give nothing; 0: a minute
	Pause    time.Duration // before a layer is asked for again; 0: 200 ms

	cache *blobs
}

// NewRegistries makes Registries that keep layers in the directory cache, by digest. It does no I/O.
func NewRegistries(cache string) *Registries {
	// docker's and podman's directories (dockerd, "certs.d").
	return &Registries{CertDirs: []string{"/etc/docker/certs.d", "/etc/containers/certs.d"}, cache: newBlobs(cache)}
}

// Open finds an image and signs in as docker's configuration says. Its layers are downloaded when the tree is read, several at once,
// and unpacked as they come; they stay in the cache, and so does what has come of one when that ends early. What two images share is
// downloaded once. Reads end with ctx. With insecure a registry elsewhere than on this computer may be asked without encryption.
// Errors: ErrNotFound; ErrRefused when the registry wants other credentials; ErrUnavailable when it does not answer; those of [OpenLayout].
func (r *Registries) Open(ctx context.Context, ref name.Reference, insecure bool, opts Options) (*Image, error) {
	auth, err := r.credentials(ctx, ref.Context())
	if err != nil {
		return nil, err
	}
	base, err := r.transport(ref.Context().RegistryStr(), insecure)
	if err != nil {
		return nil, err
	}
	found, err := find(ctx, ref, auth, base)
	if err != nil {
		return nil, registryError(err)
	}
	signedIn, err := transport.NewWithContext(ctx, ref.Context().Registry, auth, base, []string{ref.Scope(transport.PullScope)})
	if err != nil {
		return nil, registryError(err)
	}
	layers := &remoteLayers{repository: ref.Context(), client: download.Client{HTTP: &http.Client{Transport: signedIn}, Idle: r.Idle, Pause: r.Pause},
		cache: r.cache, count: &counter{report: opts.Report}}
	img, err := openImage(ctx, found, opts, layers.layer)
	if err != nil {
		return nil, registryError(err)
	}
	unpacked := img.Tree
	img.Tree = func(yield func(tree.Entry, error) bool) {
		defer layers.prefetch(ctx)()
		unpacked(yield)
	}
	img.forget = layers.forget
	return img, nil
}

// mayMend tells whether a request is worth repeating. A registry that is not there is told at once.
func mayMend(err error) bool {
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return false
	}
	temporary, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && temporary.Temporary() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// find gives the image for this platform.
func find(ctx context.Context, ref name.Reference, auth authn.Authenticator, base http.RoundTripper) (v1.Image, error) {
	d, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuth(auth), remote.WithUserAgent(userAgent), remote.WithTransport(base),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Steps: 3}), remote.WithRetryPredicate(mayMend))
	switch {
	case err != nil:
		return nil, err
	case d.MediaType.IsImage():
		return d.Image()
	case !d.MediaType.IsIndex():
		return nil, banger.Invalidf("a manifest of type %.100q, which banger does not know", d.MediaType)
	}
	index, err := d.ImageIndex()
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	img, err := choose(ctx, index, have, 1)
	if err == nil && img == nil {
		err = wrongPlatform(have)
	}
	return img, err
}

// remoteLayers are the layers of one image.
type remoteLayers struct {
	repository name.Repository
	client     download.Client
	cache      *blobs
	wanted     []remoteBlob
	count      *counter

	mu  sync.Mutex
	old []string // digests of which something was in the cache before
}

func (l *remoteLayers) layer(d v1.Descriptor) layer {
	want := remoteBlob{digest: d.Digest.Hex, size: d.Size, fetch: func(ctx context.Context, path string, report func(int64)) error {
		url := fmt.Sprintf("%s://%s/v2/%s/blobs/%s", l.repository.Scheme(), l.repository.RegistryStr(), l.repository.RepositoryStr(), d.Digest)
		return l.client.Fetch(ctx, download.File{URL: url, SizeBytes: d.Size, SHA256: d.Digest.Hex, Path: path}, report)
	}}
	l.wanted = append(l.wanted, want)
	l.count.total += d.Size
	return layer{open: func(ctx context.Context) (io.ReadCloser, error) { return l.count.over(l.cache.open(ctx, want)), nil }}
}

// forget drops what was in the cache before.
func (l *remoteLayers) forget() (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, digest := range l.old {
		errs = append(errs, l.cache.drop(digest))
	}
	return len(l.old) > 0, errors.Join(errs...)
}

// prefetch fetches the layers, the lowest first, a few at once, until the function it gives is called.
func (l *remoteLayers) prefetch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan remoteBlob)
	var group sync.WaitGroup
	for _, want := range l.wanted {
		if l.cache.hasPart(want) {
			l.mu.Lock()
			l.old = append(l.old, want.digest)
			l.mu.Unlock()
		}
	}
	group.Go(func() {
		defer close(queue)
		for _, want := range l.wanted {
			select {
			case queue <- want:
			case <-ctx.Done():
				return
			}
		}
	})
	for range layersAtOnce {
		group.Go(func() {
			for want := range queue {
				content := l.cache.open(ctx, want)
				_ = content.all() // who unpacks the layer meets the error too
				content.Close()
			}
		})
	}
	return func() {
		cancel()
		group.Wait()
	}
}
