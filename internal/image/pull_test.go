package image

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	regname "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"banger"
	"banger/api"
)

// serveRegistry serves an empty registry on this computer; around may wrap it.
func serveRegistry(t *testing.T, around func(http.Handler) http.Handler) (host string) {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if around != nil {
		handler = around(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func push(t *testing.T, ref string, img remote.Taggable, options ...remote.Option) {
	t.Helper()
	parsed, err := regname.ParseReference(ref)
	if err == nil {
		switch img := img.(type) {
		case v1.Image:
			err = remote.Write(parsed, img, options...)
		case v1.ImageIndex:
			err = remote.WriteIndex(parsed, img, options...)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPull(t *testing.T) {
	host := serveRegistry(t, nil)
	lower := tarOf(t, append(rootEntries(), text("gone", "x"), text("usr/bin/tool", "old"))...)
	img := imageOf(t, "amd64", lower, tarOf(t, text(".wh.gone", ""), text("bin/tool", "#!/bin/sh\n")))
	push(t, host+"/team/app:1.2", img)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: imageOf(t, "arm64", lower), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	push(t, host+"/team/multi:latest", index)
	m := newManager(t, "exit 1")
	keys := map[string]bool{}
	for _, tc := range []struct{ ref, name, want string }{
		{host + "/team/app:1.2", "", "app-1.2"}, {host + "/team/app:1.2", "mine", "mine"}, {host + "/team/app@" + digest.String(), "mine", "mine"}, {host + "/team/multi", "", "multi"},
	} {
		image, err := m.Pull(t.Context(), api.PullRequest{Ref: tc.ref, Name: tc.name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if image.Name != tc.want || image.Config == nil || image.Config.User != "app" || !strings.Contains(image.Source, host) {
			t.Errorf("%s: %+v", tc.ref, image)
		}
		if diff := cmp.Diff(wantPaths, paths(t, m.Dir.Image(image.Key).Rootfs())); diff != "" {
			t.Error(diff)
		}
		keys[image.Key] = true
	}
	if len(keys) != 3 {
		t.Errorf("%d images of 3 names", len(keys))
	}
}

func TestPullWithCredentials(t *testing.T) {
	asked := true
	host := serveRegistry(t, wantPassword(&asked))
	dockerConfig(t, "{}", nil)
	m := newManager(t, "exit 1")
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil); !errors.Is(err, banger.ErrRefused) || strings.Contains(err.Error(), "secret") {
		t.Errorf("without credentials: %v", err)
	}
	wantNothing(t, m)
	dockerConfig(t, authsOf(host, "user:secret"), nil)
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("an image that is not there: %v", err)
	}
	wantNothing(t, m)
}

func TestPullFails(t *testing.T) {
	host := serveRegistry(t, nil)
	push(t, host+"/arm:1", imageOf(t, "arm64", tarOf(t, rootEntries()...)))
	for _, tc := range []struct {
		ref      string
		insecure bool
		kind     error
	}{
		{"", false, banger.ErrInvalid}, {"UPPER/case:1", false, banger.ErrInvalid}, {"a:b:c", false, banger.ErrInvalid},
		{host + "/none:1", false, banger.ErrNotFound}, {host + "/arm:1", false, banger.ErrInvalid},
		{"127.0.0.1:1/app:1", false, banger.ErrUnavailable}, {"10.255.255.1:1/app:1", false, banger.ErrRefused},
	} {
		m := newManager(t, "exit 1")
		if _, err := m.Pull(t.Context(), api.PullRequest{Ref: tc.ref, Insecure: tc.insecure}, nil); !errors.Is(err, tc.kind) {
			t.Errorf("%q: %v, want %v", tc.ref, err, tc.kind)
		}
		wantNothing(t, m)
	}
}

// A connection that is cut off, or content that is another's, makes no image.
func TestPullOfDamage(t *testing.T) {
	for _, damage := range []func(http.ResponseWriter, []byte){
		func(w http.ResponseWriter, b []byte) { w.Write(b[:len(b)/2]); panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter, b []byte) { b[len(b)/2] ^= 0xFF; w.Write(b) },
		func(w http.ResponseWriter, b []byte) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		damaged := false
		host := serveRegistry(t, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !damaged || r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
					next.ServeHTTP(w, r)
					return
				}
				answer := httptest.NewRecorder()
				next.ServeHTTP(answer, r)
				if strings.HasPrefix(answer.Body.String(), "{") { // the configuration
					w.Write(answer.Body.Bytes())
					return
				}
				damage(w, answer.Body.Bytes())
			})
		})
		push(t, host+"/app:1", imageOf(t, "amd64", tarOf(t, append(rootEntries(), text("large", strings.Repeat("some content ", 100_000)))...)))
		damaged = true
		m := newManager(t, "exit 1")
		m.registries.Pause = time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		if image, err := m.Pull(ctx, api.PullRequest{Ref: host + "/app:1"}, nil); err == nil {
			t.Errorf("a damaged layer became %+v", image)
		}
		cancel()
		wantNothing(t, m)
	}
}
