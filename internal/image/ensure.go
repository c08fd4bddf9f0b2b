package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	imageref "github.com/google/go-containerregistry/pkg/name"

	"banger"
	"banger/api"
	"banger/internal/config"
)

// Ensure gives the newest image of that name, or the newest that was pulled by that reference of a registry. When there is none a reference is pulled; a name is looked for in the catalog and the registry and built from packages, in
// the configured order, as stage "image"; what fails is told as a notice. Callers share the work; it ends early when all of them have left.
// Errors: ErrNotFound for a name that nobody has; that of the only way; ErrUnavailable with what every way says. Nothing is left behind then.
func (m *Manager) Ensure(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Image, error) {
	image, err := m.find(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return image, err
	}
	if isReference(name) {
		return m.pull(ctx, api.PullRequest{Ref: name}, false, progress)
	}
	if err := banger.ValidateImageName(name); err != nil {
		return image, m.unknown(name, nil)
	}
	known, err := definitions()
	if err != nil {
		return image, err
	}
	def, defined := known[name]
	tried := m.ways(def, name)
	for i := range tried {
		w := &tried[i]
		if w.get == nil {
			continue
		}
		image, w.err = w.get(ctx, progress)
		if w.err == nil || ctx.Err() != nil {
			return image, w.err
		}
		if slices.ContainsFunc(tried[i+1:], func(w way) bool { return w.get != nil }) {
			progress.Notice("image", fmt.Sprintf("%s does not come from %s: %v", name, w.name, w.err))
		}
	}
	missing := func(w way) bool { return w.get == nil || errors.Is(w.err, banger.ErrNotFound) }
	if !defined && !slices.ContainsFunc(tried, func(w way) bool { return !missing(w) }) {
		return image, m.unknown(name, slices.Sorted(maps.Keys(known)))
	}
	return image, noWay(name, tried)
}

// isReference tells what can only be a reference of a registry from names of images.
func isReference(name string) bool {
	_, err := imageref.ParseReference(name)
	return err == nil && strings.ContainsAny(name, ":/@")
}

func sameReference(a, b string) bool {
	one, err := imageref.ParseReference(a)
	two, err2 := imageref.ParseReference(b)
	return err == nil && err2 == nil && one.Name() == two.Name()
}

// way is one way to get an image.
type way struct {
	name string
	get  func(context.Context, banger.ProgressFunc) (banger.Image, error) // nil: err says why not
	err  error
}

// ways gives all that are configured, in order.
func (m *Manager) ways(def definition, name string) (list []way) {
	for _, source := range m.Order {
		w := way{name: "the " + string(source)}
		switch {
		case source == config.FromCatalog && !m.Catalog.Configured():
			w.err = errors.New("none is configured (catalog.url)")
		case source == config.FromCatalog:
			w.get = func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
				return m.FromCatalog(ctx, name, progress)
			}
		case source == config.FromRegistry && m.Registry == "":
			w.err = errors.New("none is configured (images.registry)")
		case source == config.FromRegistry:
			w.get = func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
				return m.pull(ctx, api.PullRequest{Ref: m.Registry + "/" + name, Name: name, Boot: def.Boot}, true, progress)
			}
		case def.Name == "":
			w.err = errors.New("no definition has this name")
		default:
			w.get = func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
				return m.shareBuild(ctx, def, "", progress)
			}
		}
		list = append(list, w)
	}
	return list
}

// noWay is the error after all ways.
func noWay(name string, tried []way) error {
	if len(tried) == 1 && tried[0].get != nil {
		return tried[0].err
	}
	var lines []string
	hint := ""
	for _, w := range tried {
		lines = append(lines, fmt.Sprintf("  %s: %v", w.name, w.err))
		if h := banger.HintOf(w.err); h != "" {
			hint = h
		}
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "get image", Subject: name, Err: fmt.Errorf("no way gave it\n%s", strings.Join(lines, "\n")), Hint: hint}
}
