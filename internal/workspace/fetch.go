package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/tree"
)

// Copy is a bare repository of our own that holds what a guest's repository has: its objects and branches, and what its work tree
// has changed. It must be closed.
type Copy struct {
	dir         string
	g           git
	origin      Origin
	refs        refs
	shallow     []string // commits whose parents are not there
	hostShallow []string // those that the host's repository has no parents of either

	lacking []string // object ids that refs name and the guest does not have
	index   []indexEntry
	written time.Time       // of the index
	meta    map[string]node // in .git, but for objects
	state   *workState      // of the work tree, as far as it was needed
	noIndex error           // why the index can't be read
	linked  bool            // it is a further work tree of a repository
	plain   bool            // files without a repository
	Changes Changes
	Commits map[string]string // [Worktree], [Untracked] and [All] → object id, of those that there are
	Nested  []string          // repositories of their own below the root, which are left out
	Linked  []string          // other work trees of the repository, as absolute paths of the guest
	Notices []string          // for the user
}

// Origin is what is known of how a repository came into a guest.
type Origin struct {
	Repo string // the host repository's root; "" when it is not to be had
	Base string // commit that the guest began with; "" before the first

	Directory    bool     // files went in, no repository
	Sent         Manifest // files that went in
	Packs        []string // names of the packs that went in: the host has their objects, if it has Repo
	MaxUntracked int64    // bytes of untracked files that are taken at most; 0: none is read, only named

	// Nested is for what lies in another repository and has something called .git: if that is no repository, there are only files.
	Nested bool
}

// attributes is the repository whose attributes say how files are stored; "" for files that are stored as they are.
func (o Origin) attributes() string {
	if o.Directory {
		return ""
	}
	return o.Repo
}

// Fetch copies the repository whose root in the guest is root. The copy is made in a new directory below dir.
// Errors: ErrNotFound when there is no repository; ErrCorrupt for one that can't be read.
func Fetch(ctx context.Context, guest Guest, root, dir string, origin Origin) (_ *Copy, err error) {
	c, err := newCopy(ctx, dir, origin)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(spaceIn(c.dir, err), c.Close())
		}
	}()
	err = c.readRepository(ctx, guest, root)
	if origin.Directory && errors.Is(err, banger.ErrNotFound) {
		return c, c.readDirectory(ctx, guest, root)
	}
	if err != nil {
		return nil, err
	}
	if err := c.writeRefs(); err != nil {
		return nil, err
	}
	return c, c.readChanges(ctx, guest, root)
}

// newCopy makes an empty copy in a directory of its own below dir.
func newCopy(ctx context.Context, dir string, origin Origin) (*Copy, error) {
	own, err := os.MkdirTemp(dir, "copy-")
	if err != nil {
		return nil, spaceIn(dir, err)
	}
	c := &Copy{dir: own, g: git{env: []string{"GIT_DIR=" + own}}, origin: origin, Commits: map[string]string{}, meta: map[string]node{}}
	if err := c.init(ctx, origin); err != nil {
		return nil, errors.Join(spaceIn(own, err), c.Close())
	}
	return c, nil
}

// Close removes the copy.
func (c *Copy) Close() error { return os.RemoveAll(c.dir) }

// copyConfig is for what lives as long as one command: nothing of it has to last, and who fetches from it waits for no smaller pack.
// git's own limits of memory are for larger machines.
const copyConfig = "[core]\n\tfsync = none\n\tdeltaBaseCacheLimit = 16m\n[pack]\n\twindow = 0\n\tthreads = 1\n"

// init makes the repository. Objects that the host has are taken from there.
func (c *Copy) init(ctx context.Context, origin Origin) error {
	if err := (git{}).run(ctx, nil, nil, "init", "--quiet", "--bare", "--template=", "--object-format=sha1", c.dir); err != nil {
		return err
	}
	config, err := os.OpenFile(filepath.Join(c.dir, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = config.WriteString(copyConfig)
	if err := errors.Join(err, config.Close()); err != nil {
		return err
	}
	if origin.Repo == "" || origin.Directory {
		return nil
	}
	text, err := (git{dir: origin.Repo}).line(ctx, "rev-parse", "--path-format=absolute", "--git-common-dir", "--git-path", "objects")
	if err != nil {
		return err
	}
	common, objects, _ := strings.Cut(text, "\n")
	if err := checkVersion(common); err != nil {
		return err
	}
	host := Repo{CommonDir: common}
	if err := host.readShallow(); err != nil {
		return err
	}
	c.hostShallow = host.shallow
	info := filepath.Join(c.dir, "objects", "info")
	if err := os.MkdirAll(info, 0o700); err != nil {
		return err
	}
	if strings.ContainsAny(objects, "\n") || strings.HasPrefix(objects, `"`) {
		return banger.Invalidf("repository %q: no alternate can have this path", origin.Repo)
	}
	return os.WriteFile(filepath.Join(info, "alternates"), []byte(objects+"\n"), 0o600)
}

func (c *Copy) note(format string, args ...any) {
	c.Notices = append(c.Notices, fmt.Sprintf(format, args...))
}

// takeShallow keeps those ends of history that the host's repository does not go beyond.
func (c *Copy) takeShallow(ctx context.Context, content []byte) error {
	for line := range bytes.Lines(content) {
		if id := strings.TrimSpace(string(line)); isObjectID(id) {
			c.refs.ends = append(c.refs.ends, id)
		}
	}
	keep, err := c.missing(ctx, c.refs.ends)
	if err != nil {
		return err
	}
	return c.setShallow(append(keep, c.hostShallow...))
}

// setShallow makes history end at some commits.
func (c *Copy) setShallow(ids []string) error {
	c.shallow = slices.Compact(slices.Sorted(slices.Values(ids)))
	if len(c.shallow) == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(c.dir, "shallow"), []byte(strings.Join(c.shallow, "\n")+"\n"), 0o600)
}

// missing gives those of ids that the copy and the host's repository do not have.
func (c *Copy) missing(ctx context.Context, ids []string) (lacking []string, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	if err := c.g.run(ctx, strings.NewReader(strings.Join(ids, "\n")+"\n"), &out, "cat-file", "--batch-check=%(objectname)"); err != nil {
		return nil, err
	}
	for line := range strings.Lines(out.String()) {
		if id, ok := strings.CutSuffix(line, " missing\n"); ok {
			lacking = append(lacking, id)
		}
	}
	return lacking, nil
}

func (c *Copy) takePack(ctx context.Context, e tree.Entry) error {
	if err := indexPack(ctx, c.g, orEmpty(e.Content), e.Size, "--stdin"); err != nil {
		return fmt.Errorf("%w: %s: %w", banger.ErrCorrupt, e.Path, err)
	}
	return nil
}

// indexPack has git take a pack of so many bytes: from standard input, or a file that is named.
func indexPack(ctx context.Context, g git, stdin io.Reader, size int64, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, packPatience+time.Duration(size/packRate)*time.Second)
	defer cancel()
	g.env = append(slices.Clone(g.env), "GIT_ALLOC_LIMIT="+maxAlloc)
	return g.run(ctx, stdin, io.Discard, append([]string{"-c", "pack.threads=1", "-c", "core.bigFileThreshold=32m", "index-pack"}, args...)...)
}

// What a guest's pack may cost, whose few bytes may unfold to any number: one allocation of memory, and time. An object that is kept as
// a difference and is larger is refused; whole ones may have any size.
const (
	maxAlloc     = "512m"
	packPatience = 10 * time.Minute
	packRate     = 256 << 10 // bytes a second
)

// failing remembers an error of its reader.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// writeRefs gives the copy the guest's refs below refs/guest.
func (c *Copy) writeRefs() error {
	lines := []string{}
	for _, name := range slices.Sorted(maps.Keys(c.refs.byName)) {
		if name != "stash" {
			lines = append(lines, c.refs.byName[name]+" refs/guest/"+name)
		}
	}
	text := "# pack-refs with: sorted \n" + strings.Join(append(lines, ""), "\n")
	return os.WriteFile(filepath.Join(c.dir, "packed-refs"), []byte(text), 0o600)
}
