package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/internal/tree"
)

// dotGit is where the parts of a guest's repository lie, as absolute paths of the guest. They are two places for a work tree that was
// made by "git worktree add".
type dotGit struct {
	own    string // HEAD and index
	common string // objects and refs
}

func (d dotGit) linked() bool { return d.own != d.common }

// gitParts are the names that are read, beside those below refs; none other is.
var (
	ownParts    = []string{"HEAD", "index"}
	commonParts = []string{"packed-refs", "shallow", "info/exclude", "logs/refs/stash"}
	worktreeDir = banger.Pattern(`^worktrees/[^/]+/gitdir$`)
	notRefs     = []string{"objects", "hooks", "lfs", "modules", "rr-cache"}
)

// maxReads is how often a repository is read that changes meanwhile: objects that its refs name may have moved into a pack.
const maxReads = 3

// readRepository reads refs, index and objects.
func (c *Copy) readRepository(ctx context.Context, guest Guest, root string) error {
	have := map[string]bool{}
	for range maxReads {
		d, err := findDotGit(ctx, guest, root)
		if err == nil {
			err = c.readNames(ctx, guest, d)
		}
		if errors.Is(err, banger.ErrNotFound) && c.origin.Nested {
			c.note("it is no repository: its files are taken as they are")
			return nil
		}
		if errors.Is(err, banger.ErrNotFound) {
			return &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: root, Err: errors.New("the guest has no repository there")}
		}
		if err == nil {
			err = c.readObjects(ctx, guest, d, have)
		}
		if err == nil {
			c.lacking, err = c.missing(ctx, c.refs.ids())
		}
		if err != nil || len(c.lacking) == 0 {
			return err
		}
	}
	return nil
}

// findDotGit follows a ".git" that is a file. Errors: ErrNotFound when root is not there.
func findDotGit(ctx context.Context, guest Guest, root string) (dotGit, error) {
	d := dotGit{own: guestPath(root, ".git")}
	texts, err := smallFiles(ctx, guest, root, ".git", ".git/commondir")
	common := texts[".git/commondir"]
	if to, ok := strings.CutPrefix(texts[".git"], "gitdir: "); ok && err == nil {
		d.own = resolvePath(root, to)
		texts, err = smallFiles(ctx, guest, d.own, "commondir")
		common = texts["commondir"]
	}
	d.common = d.own
	if common != "" {
		d.common = resolvePath(d.own, common)
	}
	return d, err
}

// resolvePath gives the path that a file of git's names, relative to dir.
func resolvePath(dir, text string) string {
	text = strings.TrimRight(text, "\n")
	if path.IsAbs(text) {
		return path.Clean(text)
	}
	return path.Join(dir, text)
}

// smallFiles reads files whose content is a path; what is not there, or no such file, is left out.
func smallFiles(ctx context.Context, guest Guest, dir string, names ...string) (map[string]string, error) {
	texts := map[string]string{}
	for e, err := range guest.read(ctx, dir, names) {
		if err != nil {
			return nil, err
		}
		if e.Kind == tree.File && e.Size <= maxPath {
			b, err := io.ReadAll(orEmpty(e.Content))
			if err != nil {
				return nil, err
			}
			texts[e.Path] = string(b)
		}
	}
	return texts, nil
}

// readNames reads refs and index.
func (c *Copy) readNames(ctx context.Context, guest Guest, d dotGit) error {
	c.refs, c.index, c.Linked, c.meta = refs{byName: map[string]string{}, remotes: map[string]string{}}, nil, nil, map[string]node{}
	content := map[string][]byte{}
	places := map[string][]string{d.own: slices.Concat(ownParts, commonParts)}
	if c.linked = d.linked(); c.linked {
		places = map[string][]string{d.own: ownParts, d.common: commonParts}
	}
	for dir, parts := range places {
		names, err := c.listNames(ctx, guest, dir, parts)
		if err == nil {
			err = c.readSmall(ctx, guest, dir, names, content)
		}
		if err != nil {
			return err
		}
	}
	return c.takeNames(ctx, d, content)
}

// listNames gives the files of a .git directory that are to be read.
func (c *Copy) listNames(ctx context.Context, guest Guest, dir string, parts []string) (names []string, err error) {
	for node, err := range guest.walk(ctx, dir, notRefs...) {
		if err != nil {
			return nil, err
		}
		if len(c.meta) < maxRefs {
			c.meta[node.path] = node
		}
		switch {
		case node.path == "reftable":
			return nil, &banger.Error{Kind: banger.ErrUnsupported, Op: "workspace", Subject: dir, Err: errors.New("its refs are in a reftable"), Hint: "in the guest: git refs migrate --ref-format=files"}
		case node.Kind != tree.File || len(names) >= maxRefs:
		case slices.Contains(parts, node.path), strings.HasPrefix(node.path, "refs/"), worktreeDir().MatchString(node.path):
			names = append(names, node.path)
			if node.path == "index" {
				c.written = node.modified()
			}
		}
	}
	return names, nil
}

// fileLimits are how many bytes a file of a .git directory may have that is read.
func fileLimit(name string) int64 {
	switch name {
	case "packed-refs", "shallow":
		return maxPackedRef
	case "info/exclude":
		return maxExclude
	case "index":
		return maxIndex
	case "logs/refs/stash":
		return maxReflog
	}
	if worktreeDir().MatchString(name) {
		return maxPath
	}
	return maxRefFile
}

// readSmall reads what is no object. Refs are noted at once.
func (c *Copy) readSmall(ctx context.Context, guest Guest, dir string, names []string, content map[string][]byte) error {
	for e, err := range guest.read(ctx, dir, names) {
		if err != nil {
			return err
		}
		if e.Size > fileLimit(e.Path) {
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
	return nil
}

// takeNames makes use of what was read.
func (c *Copy) takeNames(ctx context.Context, d dotGit, content map[string][]byte) error {
	c.refs.addPacked(content["packed-refs"])
	c.refs.setHead(content["HEAD"])
	c.refs.addStashes(content["logs/refs/stash"])
	if id := c.refs.byName["stash"]; id != "" && !slices.Contains(c.refs.stashes, id) {
		c.refs.stashes = append(c.refs.stashes, id)
	}
	for name, text := range content {
		if worktreeDir().MatchString(name) {
			c.Linked = append(c.Linked, path.Dir(resolvePath(path.Join(d.common, path.Dir(name)), string(text))))
		}
	}
	slices.Sort(c.Linked)
	if d.linked() { // the rest belongs to the repository
		c.refs.leaveToOthers()
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
		c.index, c.noIndex = nil, err
	}
	return nil
}

// Files below objects.
var (
	packFile  = banger.Pattern(`^pack/pack-[0-9a-f]{40}\.pack$`)
	looseFile = banger.Pattern(`^[0-9a-f]{2}/[0-9a-f]{38}$`)
	sha256    = banger.Pattern(`^(pack/pack-[0-9a-f]{64}\.pack|[0-9a-f]{2}/[0-9a-f]{62})$`)
)

// readObjects copies the objects that the host does not have. What a pack's name says of the host's own is not sent again, nor loose
// objects that its repository has, nor what was read before.
func (c *Copy) readObjects(ctx context.Context, guest Guest, d dotGit, have map[string]bool) error {
	dir := guestPath(d.common, "objects")
	var packs, loose []string
	var total int64
	for node, err := range guest.walk(ctx, dir) {
		if total += node.Size; total > maxObjects {
			return &banger.Error{Kind: banger.ErrRefused, Op: "workspace", Subject: dir, Err: fmt.Errorf("it has more than %s of objects", banger.FormatSize(maxObjects)), Hint: "copy it out: banger vm cp"}
		}
		if strings.HasPrefix(node.path, "pack/") && len(c.meta) < maxRefs {
			c.meta["objects/"+node.path] = node
		}
		switch {
		case errors.Is(err, banger.ErrNotFound):
			return nil
		case err != nil:
			return err
		case node.Kind != tree.File || have[node.path]:
		case sha256().MatchString(node.path):
			return &banger.Error{Kind: banger.ErrUnsupported, Op: "workspace", Subject: dir, Err: errors.New("its objects have SHA-256 names"), Hint: "copy it out: banger vm cp"}
		case packFile().MatchString(node.path):
			if c.origin.Repo == "" || !slices.Contains(c.origin.Packs, path.Base(node.path)) {
				packs = append(packs, node.path)
			}
		case looseFile().MatchString(node.path):
			loose = append(loose, strings.Replace(node.path, "/", "", 1))
		}
	}
	loose, err := c.missing(ctx, loose)
	if err != nil {
		return err
	}
	gathered, err := newLoosePack(c.dir)
	if err != nil {
		return err
	}
	defer gathered.file.Close()
	for e, err := range guest.read(ctx, dir, append(packs, loosePaths(loose)...)) {
		switch {
		case err != nil:
			return err
		case e.Kind != tree.File:
		case packFile().MatchString(e.Path):
			err = c.takePack(ctx, e)
		case looseFile().MatchString(e.Path):
			err = c.takeLoose(gathered, e)
		}
		if err != nil {
			return err
		}
		have[e.Path] = true
	}
	return gathered.end(ctx, c.g)
}
