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
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/atomicfile"
)

// Status is what a guest's repository has that its host does not.
type Status struct {
	Branch   string   `json:"branch"`   // "" when HEAD is detached
	Head     string   `json:"head"`     // object id; "": the guest has no commit
	Base     string   `json:"base"`     // what went in
	Ahead    int      `json:"ahead"`    // commits of HEAD since Base
	Behind   int      `json:"behind"`   // commits of Base that HEAD lacks
	Branches []string `json:"branches"` // of the guest, sorted
	Stashes  int      `json:"stashes"`  // how many the guest has
	Changes
	Nested  []string `json:"nested,omitempty"`  // repositories of their own below the root
	Linked  []string `json:"linked,omitempty"`  // other work trees, as paths of the guest
	Notices []string `json:"notices,omitempty"` // for people: what was left out or looked wrong; absent: nothing
}

// Status sums up.
func (c *Copy) Status(ctx context.Context) (Status, error) {
	s := Status{Branch: c.refs.branch, Head: c.refs.head, Base: c.origin.Base, Branches: []string{}, Stashes: len(c.refs.stashes), Changes: c.Changes, Nested: c.Nested, Linked: c.Linked, Notices: c.Notices}
	for _, name := range slices.Sorted(maps.Keys(c.refs.byName)) {
		if branch, ok := strings.CutPrefix(name, "heads/"); ok {
			s.Branches = append(s.Branches, branch)
		}
	}
	s.Tracked, s.Untracked = append([]Change{}, s.Tracked...), append([]Change{}, s.Untracked...)
	var err error
	if s.Ahead, err = c.count(ctx, c.refs.head, c.origin.Base); err == nil {
		s.Behind, err = c.count(ctx, c.origin.Base, c.refs.head)
	}
	return s, err
}

// count gives how many commits a has that b lacks; an empty b has none.
func (c *Copy) count(ctx context.Context, a, b string) (int, error) {
	if a == "" || a == b {
		return 0, nil
	}
	args := []string{"rev-list", "--count", a}
	if b != "" {
		args = append(args, "^"+b)
	}
	text, err := c.g.line(ctx, args...)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// Contents names all that there is.
func (c *Copy) Contents(ctx context.Context) (Exported, error) {
	e := Exported{Branches: c.refs.byName, Head: c.refs.head, Stashes: c.refs.stashes}
	if id := c.Commits[All]; id != "" {
		var err error
		if e.Tree, err = c.g.line(ctx, "rev-parse", id+"^{tree}"); err != nil {
			return e, err
		}
	}
	return e, nil
}

// Work tells whether the guest has anything that neither went in nor has been exported.
func (c *Copy) Work(ctx context.Context, exported *Exported) (bool, error) {
	now, err := c.Contents(ctx)
	if err != nil {
		return true, err
	}
	if exported != nil && reflect.DeepEqual(now, *exported) {
		return false, nil
	}
	own := func(change Change) bool { return !change.Sent }
	if slices.ContainsFunc(c.Changes.Tracked, own) || slices.ContainsFunc(c.Changes.Untracked, own) || len(c.refs.stashes) > 0 {
		return true, nil
	}
	if len(c.lacking) > 0 {
		return true, nil
	}
	return c.ahead(ctx)
}

// ahead tells whether a ref has commits that neither went in nor are safe elsewhere. Remotes count for a repository that did not come
// from the host.
func (c *Copy) ahead(ctx context.Context) (bool, error) {
	ids, elsewhere := c.refs.ids(), []string{c.origin.Base}
	if c.origin.Nested {
		elsewhere = append(elsewhere, c.refs.others...)
	}
	lacking, err := c.missing(ctx, elsewhere)
	if err != nil || len(ids) == 0 {
		return false, err
	}
	gone := setOf(lacking)
	var question strings.Builder
	for _, id := range ids {
		fmt.Fprintln(&question, id)
	}
	for _, id := range elsewhere {
		if id != "" && !gone[id] {
			fmt.Fprintln(&question, "^"+id)
		}
	}
	var out bytes.Buffer
	err = c.g.run(ctx, strings.NewReader(question.String()), &out, "rev-list", "--max-count=1", "--stdin")
	return out.Len() > 0, err
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
}

// checkWhole makes sure that all that refs name can be kept. Errors: ErrCorrupt.
func (c *Copy) checkWhole() error {
	if len(c.lacking) == 0 {
		return nil
	}
	return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf("the guest names %d objects that it does not have, as %s", len(c.lacking), c.lacking[0]),
		Hint: "they may be in another repository (objects/info/alternates); in the guest: git fsck"}
}

// names gives what is kept of a guest: names below a namespace → object ids.
func (c *Copy) names() map[string]string {
	kept := map[string]string{}
	if c.refs.head != "" {
		kept["head"] = c.refs.head
	}
	for name, id := range c.refs.byName {
		if branch, ok := strings.CutPrefix(name, "heads/"); ok {
			kept["branches/"+branch] = id
		} else if strings.HasPrefix(name, "tags/") {
			kept[name] = id
		}
	}
	for i, id := range c.refs.stashes {
		kept["stash/"+strconv.Itoa(len(c.refs.stashes)-1-i)] = id // 0 is the newest, as git names them
	}
	for _, name := range []string{Worktree, Untracked, All} {
		if id := c.Commits[name]; id != "" {
			kept[name] = id
		}
	}
	return kept
}

// present leaves out names whose objects the copy does not have: a guest may say anything.
func (c *Copy) present() map[string]string {
	lacking, there := setOf(c.lacking), map[string]string{}
	for name, id := range c.names() {
		if !lacking[id] {
			there[name] = id
		}
	}
	return there
}

// Namespace is where the work of one VM is kept in a repository: refs/banger/<name>/<id>/<time>.
func Namespace(vm banger.VM, at time.Time) string {
	return fmt.Sprintf("refs/banger/%s/%s/%s", vm.Spec.Name, vm.ID, at.UTC().Format(timeFormat))
}

// timeFormat is a moment in names of refs and files.
const timeFormat = "20060102T150405.000Z"

// Save puts all that the guest has into the repository repo as refs below namespace, which must not be there yet. It gives the refs.
// Nothing else of the repository changes.
func (c *Copy) Save(ctx context.Context, repo, namespace string) (map[string]string, error) {
	kept := c.present()
	if len(kept) == 0 {
		return kept, nil
	}
	g := git{dir: repo}
	if there, err := g.output(ctx, "for-each-ref", "--count=1", namespace); err != nil {
		return nil, err
	} else if there != "" {
		return nil, &banger.Error{Kind: banger.ErrConflict, Op: "save", Subject: namespace, Err: errors.New("it is there already")}
	}
	if err := c.setRefs(kept, "refs/save/"); err != nil {
		return nil, err
	}
	args := []string{"fetch", "--quiet", "--atomic", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--no-recurse-submodules", "--refmap=", c.dir,
		"refs/save/*:" + namespace + "/*"}
	if err := g.run(ctx, nil, io.Discard, args...); err != nil {
		return nil, gitFailed("save into", repo, err)
	}
	saved := map[string]string{}
	for name, id := range kept {
		saved[namespace+"/"+name] = id
	}
	return saved, nil
}

// setRefs gives the copy refs with a prefix in place of all that it has.
func (c *Copy) setRefs(ids map[string]string, prefix string) error {
	names := []string{}
	for name := range ids {
		names = append(names, prefix+name)
	}
	slices.Sort(names)
	var text strings.Builder
	text.WriteString("# pack-refs with: sorted \n")
	for _, name := range names {
		fmt.Fprintf(&text, "%s %s\n", ids[strings.TrimPrefix(name, prefix)], name)
	}
	return os.WriteFile(filepath.Join(c.dir, "packed-refs"), []byte(text.String()), 0o600)
}

// Bundle writes all that the guest has, without what the host's repository has, into a file that "git fetch FILE" reads. The file
// is durable and appears whole. It gives the refs in it, none when there is nothing.
func (c *Copy) Bundle(ctx context.Context, path, namespace string) (map[string]string, error) {
	kept := c.present()
	if len(kept) == 0 {
		return kept, nil
	}
	if err := c.setRefs(kept, namespace+"/"); err != nil {
		return nil, err
	}
	args := []string{"-c", "pack.window=10", "bundle", "create", "--quiet", path + ".tmp", "--glob=" + namespace}
	if c.origin.Repo != "" && c.origin.Base != "" {
		args = append(args, "^"+c.origin.Base)
	}
	err := c.g.run(ctx, nil, io.Discard, args...)
	if err == nil {
		err = publish(path)
	}
	if err != nil {
		return nil, errors.Join(spaceIn(path, gitFailed("make the bundle", path, err)), removeIfThere(path+".tmp"))
	}
	return bundled(ctx, path)
}

// bundled lists the refs of a bundle: those that the host has already are left out of it.
func bundled(ctx context.Context, path string) (map[string]string, error) {
	text, err := (git{}).output(ctx, "bundle", "list-heads", path)
	refs := map[string]string{}
	for line := range strings.Lines(text) {
		if id, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			refs[name] = id
		}
	}
	return refs, err
}

func publish(path string) error {
	f, err := os.Open(path + ".tmp")
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close(), os.Chmod(path+".tmp", 0o600)); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Patch writes what has changed since base ("": what went in) as a patch that git apply takes, untracked files included.
func (c *Copy) Patch(ctx context.Context, base string, w io.Writer, color bool) error {
	if c.plain && base != "" {
		return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("files went in, no repository: there is no commit to compare with"), Hint: "leave out --base-commit"}
	}
	from, to := base, c.Commits[All]
	if c.plain {
		from = c.Commits[baseFiles]
	}
	if from == "" {
		from = c.origin.Base
	}
	if to == "" {
		to = c.refs.head
	}
	if from != "" {
		id, err := c.g.ask(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", from+"^{commit}")
		if err != nil {
			return err
		}
		if id == "" {
			return &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: fmt.Sprintf("%q", from), Err: errors.New("no commit that the guest or the host's repository has")}
		}
		from = id
	} else {
		from = emptyTree
	}
	if to == "" {
		return nil
	}
	paint := "--color=never"
	if color {
		paint = "--color=always"
	}
	return c.g.run(ctx, nil, w, "diff-tree", "-p", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-renames", paint, from, to)
}

// emptyTree is the object id of a tree without entries, which every repository knows.
const emptyTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

// SetBranch makes a branch of repo point at id: a new one, or an old one that id follows. A branch that a work tree has checked out
// is not touched. Errors: ErrConflict.
func SetBranch(ctx context.Context, repo, branch, id string) error {
	g := git{dir: repo}
	conflict := func(hint, why string) error {
		return &banger.Error{Kind: banger.ErrConflict, Op: "branch", Subject: branch, Err: errors.New(why), Hint: hint}
	}
	ref := "refs/heads/" + branch
	if _, err := g.line(ctx, "check-ref-format", ref); err != nil || strings.HasPrefix(branch, "-") {
		return banger.Invalidf("branch %q: no name for a branch", branch)
	}
	text, err := g.line(ctx, "for-each-ref", "--format=%(objectname) %(worktreepath)", ref)
	if err != nil {
		return err
	}
	old, where, _ := strings.Cut(text, " ")
	switch {
	case old == id:
		return nil
	case where != "":
		return conflict("git merge "+id, "it is checked out in "+where)
	case old != "":
		base, err := g.ask(ctx, "merge-base", old, id)
		if err != nil {
			return err
		}
		if base != old {
			return conflict("choose another --branch", "it has commits that the guest's lacks")
		}
	default:
		old = strings.Repeat("0", len(id))
	}
	return g.run(ctx, nil, nil, "update-ref", "-m", "banger: workspace pull", ref, id, old)
}

// Head gives the commit that the guest is at, and with changes the one that also has all that is not committed.
func (c *Copy) Head(changes bool) string {
	if id := c.Commits[All]; changes && id != "" {
		return id
	}
	return c.refs.head
}
