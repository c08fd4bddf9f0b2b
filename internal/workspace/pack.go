package workspace

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultDepth is how many commits deep the history goes that travels.
const DefaultDepth = 10

// pack is objects on their way into a guest, as git keeps them: <Path>.pack and <Path>.idx.
type pack struct {
	path    string   // without the ending; "" when there is nothing to send
	shallow []string // commits that the receiver must not ask for the parents of
}

// name is that of the files in objects/pack.
func (p pack) name() string { return filepath.Base(p.path) }

// makePack writes the objects of tips, depth commits deep (0: all), and of the index file, without what is reachable from have.
// The files are in dir, which the caller removes.
func (r *Repo) makePack(ctx context.Context, dir, index string, tips, have []string, depth int) (pack, error) {
	shallow, err := r.boundary(ctx, tips, depth)
	if err != nil {
		return pack{}, err
	}
	var want strings.Builder
	for _, id := range shallow {
		fmt.Fprintf(&want, "--shallow %s\n", id)
	}
	for _, id := range tips {
		fmt.Fprintln(&want, id)
	}
	for _, id := range have {
		fmt.Fprintln(&want, "^"+id)
	}
	var sum bytes.Buffer
	g := git{dir: r.Root, env: []string{"GIT_INDEX_FILE=" + index}}
	// The empty shallow file: what the repository itself lacks stands among the lines above. No window: looking for more differences than the
	// repository's own packs have takes longer than what they would save.
	if err := g.run(ctx, strings.NewReader(want.String()), &sum, "-c", "core.bigFileThreshold=32m", "--shallow-file", "", "pack-objects", "--revs", "--shallow", "--indexed-objects", "--quiet",
		"--window=0", "--delta-base-offset", "--non-empty", filepath.Join(dir, "pack")); err != nil {
		return pack{}, err
	}
	id := strings.TrimSpace(sum.String())
	if id == "" { // nothing that the receiver lacks
		return pack{shallow: shallow}, nil
	}
	if !isObjectID(id) {
		return pack{}, fmt.Errorf("git pack-objects says %.100q", id)
	}
	p := pack{path: filepath.Join(dir, "pack-"+id), shallow: shallow}
	if _, err := os.Stat(p.path + ".idx"); err != nil {
		return pack{}, err
	}
	return p, nil
}

// boundary gives the commits that are depth-1 parents away from the nearest tip and have parents, and those on the way that the
// repository itself has no parents of.
func (r *Repo) boundary(ctx context.Context, tips []string, depth int) ([]string, error) {
	own := map[string]bool{}
	for _, id := range r.shallow {
		own[id] = true
	}
	if depth == 0 {
		return r.reachable(ctx, tips, own)
	}
	var shallow []string
	seen := map[string]bool{}
	level := unseen(tips, seen)
	for n := 1; len(level) > 0; n++ {
		parents, err := r.parents(ctx, level)
		if err != nil {
			return nil, err
		}
		var next []string
		for _, id := range level {
			switch {
			case own[id], n == depth && len(parents[id]) > 0:
				shallow = append(shallow, id)
			case n < depth:
				next = append(next, parents[id]...)
			}
		}
		level = unseen(next, seen)
	}
	slices.Sort(shallow)
	return shallow, nil
}

// unseen gives each of ids that was not seen before, once.
func unseen(ids []string, seen map[string]bool) (fresh []string) {
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			fresh = append(fresh, id)
		}
	}
	return fresh
}

// reachable gives those of ids in own that a whole history comes by.
func (r *Repo) reachable(ctx context.Context, tips []string, own map[string]bool) (found []string, err error) {
	if len(own) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	if err := (git{dir: r.Root}).run(ctx, strings.NewReader(strings.Join(tips, "\n")+"\n"), &out, "rev-list", "--stdin"); err != nil {
		return nil, err
	}
	for id := range strings.Lines(out.String()) {
		if id = strings.TrimSpace(id); own[id] {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	return found, nil
}

// parents gives the parents of commits, as far as the repository has them.
func (r *Repo) parents(ctx context.Context, ids []string) (map[string][]string, error) {
	var out bytes.Buffer
	if err := (git{dir: r.Root}).run(ctx, strings.NewReader(strings.Join(ids, "\n")+"\n"), &out, "rev-list", "--no-walk=unsorted", "--parents", "--stdin"); err != nil {
		return nil, err
	}
	parents := map[string][]string{}
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) > 0 {
			parents[f[0]] = f[1:]
		}
	}
	return parents, nil
}
