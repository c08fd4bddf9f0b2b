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

// maxNewCommits is how long a history may be that a guest gets beyond what it has; of a longer one only the end travels.
const maxNewCommits = 2000

// has is what a guest's repository has of the host's.
type has struct {
	commits []string // with all that is reachable from them, up to ends
	ends    []string // of a shallow history
}

// onHost gives those of ids that are commits which a ref or HEAD of the repository leads to: they stay there.
func (r *Repo) onHost(ctx context.Context, ids []string) (map[string]bool, error) {
	there := map[string]bool{}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	if len(ids) == 0 {
		return there, nil
	}
	g := git{dir: r.Root}
	var out bytes.Buffer
	if err := g.run(ctx, strings.NewReader(strings.Join(ids, "\n")+"\n"), &out, "cat-file", "--batch-check=%(objectname) %(objecttype)"); err != nil {
		return nil, err
	}
	for line := range strings.Lines(out.String()) {
		id, ok := strings.CutSuffix(line, " commit\n")
		if !ok {
			continue
		}
		args := []string{"rev-list", "--max-count=1", id, "--not", "--all"}
		if r.Head != "" {
			args = append(args, r.Head)
		}
		text, err := g.line(ctx, args...)
		if err != nil {
			return nil, err
		}
		there[id] = text == ""
	}
	return there, nil
}

// makeDelta writes what a guest lacks of tips and of the blobs. The files are in dir, which the caller removes. The pack's shallow are the
// ends that the guest's history has afterwards.
func (r *Repo) makeDelta(ctx context.Context, dir string, tips, blobs []string, guest has, full bool) (pack, error) {
	fresh, ends, err := r.newCommits(ctx, dir, tips, guest, full)
	if err != nil {
		return pack{}, err
	}
	there, err := r.objects(ctx, guest.commits)
	if err != nil {
		return pack{}, err
	}
	want, err := r.objects(ctx, fresh)
	if err != nil {
		return pack{}, err
	}
	have := map[string]bool{}
	for _, line := range there {
		id, _, _ := strings.Cut(line, " ")
		have[id] = true
	}
	var list strings.Builder
	for _, line := range append(want, blobs...) {
		if id, _, _ := strings.Cut(line, " "); !have[id] {
			have[id] = true
			fmt.Fprintln(&list, line)
		}
	}
	p := pack{shallow: ends}
	if list.Len() == 0 {
		return p, nil
	}
	sum, err := git{dir: r.Root}.feed(ctx, list.String(), "pack-objects", "--quiet", "--delta-base-offset", filepath.Join(dir, "pack"))
	if err != nil {
		return pack{}, err
	}
	id := strings.TrimSpace(sum)
	if !isObjectID(id) {
		return pack{}, fmt.Errorf("git pack-objects says %.100q", id)
	}
	p.path = filepath.Join(dir, "pack-"+id)
	_, err = os.Stat(p.path + ".idx")
	return p, err
}

// feed is output with lines as standard input.
func (g git) feed(ctx context.Context, lines string, args ...string) (string, error) {
	var out bytes.Buffer
	err := g.run(ctx, strings.NewReader(lines), &out, args...)
	return out.String(), err
}

// objects lists commits, their trees and what is in those, as "<id> <path>".
func (r *Repo) objects(ctx context.Context, commits []string) ([]string, error) {
	if len(commits) == 0 {
		return nil, nil
	}
	text, err := git{dir: r.Root}.feed(ctx, strings.Join(commits, "\n")+"\n", "rev-list", "--objects", "--no-walk=unsorted", "--stdin")
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n"), err
}

// newCommits gives the commits of tips that a guest lacks, and the ends of its history once it has them.
func (r *Repo) newCommits(ctx context.Context, dir string, tips []string, guest has, full bool) (fresh, ends []string, err error) {
	known, err := r.within(ctx, dir, guest)
	if err != nil {
		return nil, nil, err
	}
	ask := strings.Join(tips, "\n") + "\n"
	if !full || len(guest.ends) == 0 {
		for _, id := range guest.commits {
			ask += "^" + id + "\n"
		}
	}
	if len(tips) == 0 {
		return nil, guest.ends, nil
	}
	text, err := git{dir: r.Root}.feed(ctx, ask, "rev-list", "--topo-order", "--parents", "--stdin")
	if err != nil {
		return nil, nil, err
	}
	parents := map[string][]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 && !known[f[0]] {
			parents[f[0]] = f[1:]
			fresh = append(fresh, f[0])
		}
	}
	if !full && len(fresh) > maxNewCommits {
		fresh = nearest(tips, parents, DefaultDepth)
	}
	comes := map[string]bool{}
	for _, id := range fresh {
		comes[id] = true
	}
	lacks := func(parent string) bool {
		return !comes[parent] && !known[parent] && len(guest.ends) > 0 || !comes[parent] && parents[parent] != nil
	}
	for _, id := range fresh {
		if slices.Contains(r.shallow, id) || slices.ContainsFunc(parents[id], lacks) {
			ends = append(ends, id)
		}
	}
	for _, id := range guest.ends {
		if !comes[id] && (!full || !r.whole(ctx, id, func(parent string) bool { return comes[parent] || known[parent] })) {
			ends = append(ends, id)
		}
	}
	slices.Sort(ends)
	return fresh, slices.Compact(ends), nil
}

// whole tells whether the repository knows all parents of a commit as ones that there is.
func (r *Repo) whole(ctx context.Context, id string, there func(string) bool) bool {
	if slices.Contains(r.shallow, id) {
		return false
	}
	parents, err := r.parents(ctx, []string{id})
	return err == nil && len(parents[id]) > 0 && !slices.ContainsFunc(parents[id], func(parent string) bool { return !there(parent) })
}

// nearest gives the commits that are fewer than depth parents away from a tip.
func nearest(tips []string, parents map[string][]string, depth int) (list []string) {
	seen := map[string]bool{}
	level := unseen(tips, seen)
	for range depth {
		var next []string
		for _, id := range level {
			if above, ok := parents[id]; ok {
				list, next = append(list, id), append(next, above...)
			}
		}
		level = unseen(next, seen)
	}
	return list
}

// within gives the commits that a guest with a shallow history has; of one with all of it those that it names.
func (r *Repo) within(ctx context.Context, dir string, guest has) (map[string]bool, error) {
	known := map[string]bool{}
	for _, id := range guest.commits {
		known[id] = true
	}
	if len(guest.ends) == 0 || len(guest.commits) == 0 {
		return known, nil
	}
	file := filepath.Join(dir, "ends")
	if err := os.WriteFile(file, []byte(strings.Join(append(slices.Clone(guest.ends), r.shallow...), "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := (git{dir: r.Root}).run(ctx, strings.NewReader(strings.Join(guest.commits, "\n")+"\n"), &out, "--shallow-file", file, "rev-list", "--stdin"); err != nil {
		return nil, err
	}
	for id := range strings.Lines(out.String()) {
		known[strings.TrimSpace(id)] = true
	}
	return known, nil
}
