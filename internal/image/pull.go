package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	imageref "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"banger"
	"banger/internal/statedir"
)

// Pull makes an image of what a registry has under ref, as stage "image". An empty imageName is taken from ref. Credentials
// are those of docker's configuration. With insecure a registry elsewhere than on this computer may be asked without
// encryption. On error nothing is left.
// Errors: ErrInvalid for a bad ref or name; ErrNotFound; ErrRefused when the registry wants other credentials; ErrUnavailable
// when it does not answer; those of [Manager.Import].
func (m *Manager) Pull(ctx context.Context, ref, imageName string, boot banger.BootKind, insecure bool, progress banger.ProgressFunc) (banger.Image, error) {
	var options []imageref.Option
	if insecure {
		options = append(options, imageref.Insecure)
	}
	parsed, err := imageref.ParseReference(ref, options...)
	if err != nil {
		return banger.Image{}, &banger.Error{Kind: banger.ErrInvalid, Op: "image reference", Subject: fmt.Sprintf("%.300q", ref), Err: errors.New("it is none"),
			Hint: "for example: alpine:3 or registry.example/team/app@sha256:…"}
	}
	if imageName == "" {
		imageName = nameOf(parsed)
	}
	return m.make(ctx, job{"pull image " + parsed.String(), "pulling image " + parsed.String(), imageName, boot}, progress, func(_ statedir.ImageDir, report func(int64)) (*source, error) {
		img, err := remote.Image(parsed, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
			remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}), remote.WithUserAgent("banger"),
			remote.WithTransport(encrypted{remote.DefaultTransport, insecure}))
		if err != nil {
			return nil, registryError(err)
		}
		src := &source{from: parsed.String(), report: report}
		return src, src.openImage(img)
	})
}

var noName = regexp.MustCompile(`[^a-z0-9._-]+`)

// nameOf is the last part of a repository, with the tag unless that is the default one.
func nameOf(ref imageref.Reference) string {
	repository := ref.Context().RepositoryStr()
	text := repository[strings.LastIndexByte(repository, '/')+1:]
	if tag, ok := ref.(imageref.Tag); ok && tag.TagStr() != imageref.DefaultTag {
		text += "-" + tag.TagStr()
	}
	return strings.Trim(noName.ReplaceAllString(strings.ToLower(text), "-"), "._-")
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
