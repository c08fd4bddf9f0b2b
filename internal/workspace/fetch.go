package workspace

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/tree"
)

// Copy is a bare repository of our own that holds what a guest's repository has: its objects and branches, and what its work tree
// has changed. It must be closed.
type Copy struct {
	dir     string
	g       git
	origin  Origin
	refs    refs
	index   []indexEntry
	written time.Time // of the index
	Changes Changes
	Commits map[string]string // [Worktree], [Untracked] and [All] → object id, of those that there are
	Nested  []string          // repositories of their own below the root, which are left out
	Notices []string          // for the user
}

// Origin is what is known of how a repository came into a guest.
type Origin struct {
	Repo string // the host repository's root; "" when it is not to be had
	Base string // commit that the guest began with; "" before the first

	Sent         Manifest // files that went in
	Packs        []string // names of the packs that went in: the host has their objects, if it has Repo
	MaxUntracked int64    // bytes of untracked files that are taken at most; 0: none is read, only named
}

// gitParts are the names in a .git directory that are read; none other is.
var gitParts = []string{"HEAD", "packed-refs", "shallow", "index", "info/exclude", "logs/refs/stash"}

// Fetch copies the repository whose root in the guest is root. The copy is made in a new directory below dir.
// Errors: ErrNotFound when there is no repository; ErrCorrupt for one that can't be read.
func Fetch(ctx context.Context, guest Guest, root, dir string, origin Origin) (_ *Copy, err error) {
	own, err := os.MkdirTemp(dir, "copy-")
	if err != nil {
		return nil, spaceIn(dir, err)
	}
	c := &Copy{dir: own, g: git{env: []string{"GIT_DIR=" + own}}, origin: origin, Commits: map[string]string{}, refs: refs{byName: map[string]string{}}}
	defer func() {
		if err != nil {
			err = errors.Join(spaceIn(own, err), c.Close())
		}
	}()
	if err := c.init(ctx, origin); err != nil {
		return nil, err
	}
	objects, err := c.readNames(ctx, guest, root)
	if err != nil {
		return nil, err
	}
	if err := c.readObjects(ctx, guest, root, objects, origin); err != nil {
		return nil, err
	}
	if err := c.writeRefs(); err != nil {
		return nil, err
	}
	return c, c.readChanges(ctx, guest, root)
}

// Close removes the copy.
func (c *Copy) Close() error { return os.RemoveAll(c.dir) }

// init makes the repository. Objects that the host has are taken from there.
func (c *Copy) init(ctx context.Context, origin Origin) error {
	if err := (git{}).run(ctx, nil, nil, "init", "--quiet", "--bare", "--template=", "--object-format=sha1", c.dir); err != nil {
		return err
	}
	if origin.Repo == "" {
		return nil
	}
	objects, err := (git{dir: origin.Repo}).line(ctx, "rev-parse", "--path-format=absolute", "--git-path", "objects")
	if err != nil {
		return err
	}
	info := filepath.Join(c.dir, "objects", "info")
	if err := os.MkdirAll(info, 0o700); err != nil {
		return err
	}
	if strings.ContainsAny(objects, "\n") || strings.HasPrefix(objects, `"`) {
		return banger.Invalidf("repository %q: no alternate can have this path", origin.Repo)
	}
	return os.WriteFile(filepath.Join(info, "alternates"), []byte(objects+"\n"), 0o600)
}

// objectFiles are the files below objects, by their paths.
type objectFiles struct{ packs, loose []string }

var (
	packFile  = regexp.MustCompile(`^objects/pack/pack-[0-9a-f]{40}\.pack$`)
	looseFile = regexp.MustCompile(`^objects/[0-9a-f]{2}/[0-9a-f]{38}$`)
)

// readNames reads refs and index and finds out which objects there are.
func (c *Copy) readNames(ctx context.Context, guest Guest, root string) (objects objectFiles, err error) {
	var names []string
	found := false
	for node, err := range guest.walk(ctx, guestPath(root, ".git"), "hooks", "lfs", "modules", "worktrees", "rr-cache") {
		if err != nil {
			return objects, err
		}
		found = true
		switch {
		case node.Kind != tree.File:
		case packFile.MatchString(node.path):
			objects.packs = append(objects.packs, node.path)
		case looseFile.MatchString(node.path):
			objects.loose = append(objects.loose, node.path)
		case slices.Contains(gitParts, node.path), strings.HasPrefix(node.path, "refs/") && len(names) < maxRefs:
			names = append(names, node.path)
			if node.path == "index" {
				c.written = node.modified()
			}
		}
	}
	if !found {
		return objects, &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: root, Err: errors.New("the guest has no repository there")}
	}
	return objects, c.readSmall(ctx, guest, root, names)
}

// readSmall reads what is no object.
func (c *Copy) readSmall(ctx context.Context, guest Guest, root string, names []string) error {
	content := map[string][]byte{}
	for e, err := range guest.read(ctx, guestPath(root, ".git"), names) {
		if err != nil {
			return err
		}
		limit := int64(maxRefFile)
		switch e.Path {
		case "packed-refs", "shallow":
			limit = maxPackedRef
		case "info/exclude":
			limit = maxExclude
		case "index":
			limit = maxIndex
		case "logs/refs/stash":
			limit = maxReflog
		}
		if e.Size > limit {
			return fmt.Errorf("%w: %s in the guest's .git has %s", banger.ErrCorrupt, e.Path, banger.FormatSize(e.Size))
		}
		b, err := io.ReadAll(orEmpty(e.Content))
		if err != nil {
			return err
		}
		if name, ok := strings.CutPrefix(e.Path, "refs/"); ok {
			c.refs.addLoose(name, b)
			continue
		}
		content[e.Path] = b
	}
	c.refs.addPacked(content["packed-refs"])
	c.refs.setHead(content["HEAD"])
	c.refs.addStashes(content["logs/refs/stash"])
	if id := c.refs.byName["stash"]; id != "" && !slices.Contains(c.refs.stashes, id) {
		c.refs.stashes = append(c.refs.stashes, id)
	}
	if err := c.takeShallow(ctx, content["shallow"]); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "info"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.dir, "info", "exclude"), content["info/exclude"], 0o600); err != nil {
		return err
	}
	if len(content["index"]) == 0 {
		return nil
	}
	var err error
	if c.index, err = parseIndex(content["index"]); err != nil {
		c.note("its index can't be read: every file is compared by content (%v)", err)
		c.index = nil
	}
	return nil
}

func (c *Copy) note(format string, args ...any) {
	c.Notices = append(c.Notices, fmt.Sprintf(format, args...))
}

// takeShallow keeps those ends of history that the host's repository does not go beyond.
func (c *Copy) takeShallow(ctx context.Context, content []byte) error {
	var ends []string
	for line := range bytes.Lines(content) {
		if id := strings.TrimSpace(string(line)); objectID.MatchString(id) {
			ends = append(ends, id)
		}
	}
	keep, err := c.missing(ctx, ends)
	if err != nil || len(keep) == 0 {
		return err
	}
	return os.WriteFile(filepath.Join(c.dir, "shallow"), []byte(strings.Join(keep, "\n")+"\n"), 0o600)
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

// readObjects copies the objects that the host does not have. What a pack's name says of the host's own is not sent again.
func (c *Copy) readObjects(ctx context.Context, guest Guest, root string, objects objectFiles, origin Origin) error {
	if origin.Repo != "" {
		objects.packs = slices.DeleteFunc(objects.packs, func(name string) bool { return slices.Contains(origin.Packs, path.Base(name)) })
	}
	for e, err := range guest.read(ctx, guestPath(root, ".git"), slices.Concat(objects.packs, objects.loose)) {
		switch {
		case err != nil:
			return err
		case e.Kind != tree.File:
		case packFile.MatchString(e.Path):
			err = c.takePack(ctx, e)
		case looseFile.MatchString(e.Path):
			err = c.takeLoose(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Copy) takePack(ctx context.Context, e tree.Entry) error {
	if e.Size > maxPack {
		return fmt.Errorf("%w: a pack of %s in the guest", banger.ErrCorrupt, banger.FormatSize(e.Size))
	}
	if err := c.g.run(ctx, orEmpty(e.Content), io.Discard, "index-pack", "--stdin", "--max-input-size="+strconv.FormatInt(maxPack, 10)); err != nil {
		return fmt.Errorf("%w: %s: %w", banger.ErrCorrupt, e.Path, err)
	}
	return nil
}

// takeLoose writes a loose object whose content has the name that it claims; a damaged one is left out and told.
func (c *Copy) takeLoose(e tree.Entry) error {
	id := strings.ReplaceAll(strings.TrimPrefix(e.Path, "objects/"), "/", "")
	target := filepath.Join(c.dir, "objects", id[:2], id[2:])
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	got, sumErr := objectSum(io.TeeReader(orEmpty(e.Content), f))
	if err := f.Close(); err != nil {
		return err
	}
	if sumErr == nil && got == id {
		return nil
	}
	if errors.Is(sumErr, errRead) {
		return errors.Join(sumErr, os.Remove(target))
	}
	c.note("a damaged object %s was left out", id)
	return os.Remove(target)
}

// errRead is for an error of the source rather than of what it gives.
var errRead = errors.New("read object")

// objectSum inflates a loose object and gives the SHA-1 of what is in it. It reads to the end.
func objectSum(r io.Reader) (string, error) {
	in := &failing{r: r}
	h := sha1.New()
	z, err := zlib.NewReader(in)
	if err == nil {
		var n int64
		if n, err = io.Copy(h, io.LimitReader(z, maxObject+1)); err == nil && n > maxObject {
			err = errors.New("too large")
		}
	}
	if _, drainErr := io.Copy(io.Discard, in); drainErr != nil || in.err != nil {
		return "", errors.Join(errRead, drainErr, in.err)
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

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
