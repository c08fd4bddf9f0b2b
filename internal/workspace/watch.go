package workspace

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"banger/internal/proc"
)

// Excluded gives those of paths below the root that do not travel while both sides are watched: what git ignores, what lies in a .git
// directory, and what git can't judge. A path that ends in a slash is a directory, which need not be there; it is excluded when all below
// it is.
func (r Repo) Excluded(ctx context.Context, paths []string) (map[string]bool, error) {
	excluded := map[string]bool{}
	var ask []string
	for _, name := range paths {
		if checkPath(strings.TrimSuffix(name, "/")) != nil {
			excluded[name] = true
			continue
		}
		ask = append(ask, name)
	}
	if err := r.checkIgnore(ctx, ask, excluded); err != nil {
		return nil, err
	}
	return excluded, r.keepTracked(ctx, excluded)
}

// checkIgnore has git judge paths. It gives up at the first one that it can't judge (one beyond a symbolic link, or in a submodule): halves
// find which that is. The dot before each makes sure that git takes it for a name and nothing else.
func (r Repo) checkIgnore(ctx context.Context, paths []string, excluded map[string]bool) error {
	if len(paths) == 0 {
		return nil
	}
	var out bytes.Buffer
	err := (git{dir: r.Root}).run(ctx, strings.NewReader("./"+strings.Join(paths, "\x00./")+"\x00"), &out, "check-ignore", "--stdin", "-z")
	exit, failed := errors.AsType[*proc.ExitError](err)
	switch {
	case failed && exit.Status == 128 && len(paths) > 1:
		half := len(paths) / 2
		return errors.Join(r.checkIgnore(ctx, paths[:half], excluded), r.checkIgnore(ctx, paths[half:], excluded))
	case failed && exit.Status == 128 && r.judges(ctx):
		excluded[paths[0]] = true
		return nil
	case failed && exit.Status == 1: // none is ignored
		return nil
	case err != nil:
		return gitFailed("judge what is ignored in", r.Root, err)
	}
	for name := range strings.SplitSeq(out.String(), "\x00") {
		if name, ok := strings.CutPrefix(name, "./"); ok {
			excluded[name] = true
		}
	}
	return nil
}

// judges tells whether git works in the repository at all.
func (r Repo) judges(ctx context.Context) bool {
	dir, err := (git{dir: r.Root}).ask(ctx, "rev-parse", "--show-toplevel")
	return err == nil && dir == r.Root
}

// keepTracked takes directories back in which git tracks a file all the same.
func (r Repo) keepTracked(ctx context.Context, excluded map[string]bool) error {
	dirs := map[string]bool{}
	for name := range excluded {
		if strings.HasSuffix(name, "/") {
			dirs[name] = true
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	text, err := (git{dir: r.Root}).output(ctx, "ls-files", "--cached", "-z")
	if err != nil {
		return gitFailed("list the files of", r.Root, err)
	}
	for name := range strings.SplitSeq(text, "\x00") {
		for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
			if dirs[name[:i+1]] && checkPath(name) == nil {
				delete(excluded, name[:i+1])
			}
		}
	}
	return nil
}
