package image

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	imageref "github.com/google/go-containerregistry/pkg/name"

	"banger"
	"banger/api"
	"banger/internal/oci"
	"banger/internal/statedir"
)

// Pull makes an image of what the catalog has under the request's reference, if that is a plain name, else of what a registry has, as stage
// "image". An empty name is taken from the reference.
// Credentials are those of docker's configuration. Layers come in parallel, stay in the cache, and are unpacked as they come. Two
// equal pulls share one. On error nothing is left but what has come into the cache.
// Errors: ErrInvalid for a bad reference, name or platform; ErrNotFound; ErrRefused when the registry wants other credentials;
// ErrUnavailable when it does not answer; those of [Manager.Import].
func (m *Manager) Pull(ctx context.Context, req api.PullRequest, progress banger.ProgressFunc) (banger.Image, error) {
	if image, found, err := m.pullNamed(ctx, req, progress); found || err != nil {
		return image, err
	}
	return m.pull(ctx, req, false, progress)
}

// pull makes an image of what a registry has. A known image has a name that banger builds itself.
func (m *Manager) pull(ctx context.Context, req api.PullRequest, known bool, progress banger.ProgressFunc) (banger.Image, error) {
	var options []imageref.Option
	if req.Insecure {
		options = append(options, imageref.Insecure)
	}
	ref, err := imageref.ParseReference(req.Ref, options...)
	if err != nil {
		return banger.Image{}, &banger.Error{Kind: banger.ErrInvalid, Op: "image reference", Subject: fmt.Sprintf("%.300q", req.Ref), Err: errors.New("it is none"),
			Hint: "for example: alpine:3 or registry.example/team/app@sha256:…"}
	}
	if req.Platform != "" && req.Platform != oci.Platform {
		return banger.Image{}, &banger.Error{Kind: banger.ErrInvalid, Op: "platform", Subject: fmt.Sprintf("%.100q", req.Platform),
			Err: errors.New("machines on this computer run " + oci.Platform)}
	}
	if req.Name == "" {
		req.Name = nameOf(ref)
	}
	p := plan{known: known, op: "pull image " + ref.String(), text: "pulling image " + ref.String(), image: banger.Image{Name: req.Name, Boot: req.Boot, Kernel: req.Kernel}}
	if err := p.validate(); err != nil {
		return banger.Image{}, &banger.Error{Op: p.op, Err: err}
	}
	return m.jobs.Do(ctx, p.op, fmt.Sprintf("%s %+v", p.op, req), progress, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		opts := oci.Options{Limits: m.Limits, Report: func(done, total int64) {
			progress.Report(banger.Progress{Stage: "image", Text: p.text, Bytes: done, Total: total})
		}}
		var img *oci.Image
		open := func(staging statedir.ImageDir) (src *source, err error) {
			opts.Spool = staging.Path
			if img, err = m.registries.Open(ctx, ref, req.Insecure, opts); err != nil {
				return nil, err
			}
			return imageSource(img, ref.String()), nil
		}
		image, err := m.make(ctx, p, progress, open)
		if !errors.Is(err, banger.ErrCorrupt) || img == nil {
			return image, err
		}
		if cached, forgetErr := img.Forget(); !cached || forgetErr != nil { // else it may be the cache's fault: a computer lost power
			return image, errors.Join(err, forgetErr)
		}
		return m.make(ctx, p, progress, open)
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
