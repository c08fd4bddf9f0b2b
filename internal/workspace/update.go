package workspace

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/tree"
)

// Update is what makes a guest's checkout that of a plan, known before a byte is sent. It must be closed.
type Update struct {
	Written []string // files that go in, below the root of the whole, sorted
	Removed []string // files that go
	Kept    []string // files that have changed in the guest only: they stay as they are
	Notices []string // for the user, of what has been done

	ship    *Shipment
	c       *Copy
	record  Record
	subs    []*Update
	fresh   []*Shipment // submodules that the guest does not have yet
	removed []string    // below its own root
	kept    map[string]bool
	host    map[string]blobRef // content that the guest is to have
	rules   rules
	set     []setRef
	index   bool // is written
	whole   bool // the record tells of what the files are afterwards
}

// setRef is a file in .git that names a commit.
type setRef struct{ name, text string }

// Blocked is work in a guest that an update would take away.
type Blocked struct {
	Commits []string `json:"commits"` // that the host does not have: "<id> <subject>"
	Files   []string `json:"files"`   // changed on both sides, or in the way
	Staged  []string `json:"staged"`  // with content in the index that is nowhere else
}

func (b *Blocked) Error() string {
	var parts []string
	for _, part := range []struct {
		names     []string
		one, many string
	}{{b.Commits, "commit", "commits"}, {b.Files, "file", "files"}, {b.Staged, "staged file", "staged files"}} {
		switch n := len(part.names); n {
		case 0:
		case 1:
			parts = append(parts, fmt.Sprintf("1 %s (%s)", part.one, part.names[0]))
		default:
			parts = append(parts, fmt.Sprintf("%d %s (%s)", n, part.many, some(part.names)))
		}
	}
	return "the VM has work that would be lost: " + strings.Join(parts, ", ")
}

// Is makes it a conflict.
func (b *Blocked) Is(target error) bool { return target == banger.ErrConflict }

func (b *Blocked) any() bool { return len(b.Commits)+len(b.Files)+len(b.Staged) > 0 }

// Look copies what a guest has of a repository that was put in before, to be updated: with all work that is not committed if save is set,
// else only so far as it is needed. Nested repositories are not looked at. Errors: ErrNotFound when there is none any more.
func Look(ctx context.Context, guest Guest, record Record, save bool) (*Copy, error) {
	origin := record.Origin()
	if save {
		origin.MaxUntracked = MaxSaved
	}
	return Fetch(ctx, guest, record.GuestPath, os.TempDir(), origin)
}

// Update compares a guest's checkout with a plan, and the host's files with what was sent, both at once. The work that the guest has counts as
// saved with force. Errors: those of [Look]; a [Blocked]; ErrConflict while git is at work in the guest.
func (p Plan) Update(ctx context.Context, guest Guest, record Record, force bool) (*Update, error) {
	var host map[string]blobRef
	compared := make(chan error, 1)
	go func() {
		var err error
		host, err = p.contents(ctx, record.Sent)
		compared <- err
	}()
	c, err := Look(ctx, guest, record, force)
	compareErr := <-compared
	if err != nil {
		return nil, err
	}
	if compareErr != nil {
		return nil, errors.Join(compareErr, c.Close())
	}
	return p.update(ctx, guest, c, record, force, host)
}

// update compares what c is a copy of with a plan, whose files are host. The update owns c.
func (p Plan) update(ctx context.Context, guest Guest, c *Copy, record Record, force bool, host map[string]blobRef) (*Update, error) {
	dir, err := os.MkdirTemp("", "banger-workspace-")
	if err != nil {
		return nil, errors.Join(spaceIn(os.TempDir(), err), c.Close())
	}
	u := &Update{ship: &Shipment{dir: dir}, c: c, record: record, host: host}
	blocked := &Blocked{}
	if record.HostPath != p.Repo.Root {
		err = &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("what is there came from %s, not from %s", record.HostPath, p.Repo.Root), Hint: "choose another --guest-path"}
	} else if record.Directory != p.Directory {
		err = &banger.Error{Kind: banger.ErrConflict, Err: errors.New("a repository goes over files, or files over a repository"), Hint: "choose the --mode of the first time, or another --guest-path"}
	} else {
		p.Readonly = p.Readonly || record.Readonly
		err = u.plan(ctx, guest, p, "", force, blocked)
	}
	slices.Sort(blocked.Files)
	blocked.Files = slices.Compact(blocked.Files)
	if err == nil && blocked.any() {
		hint := "bring it back first: banger workspace pull; or --force, which saves it before"
		if p.Directory {
			hint = "bring it back first: banger workspace pull --apply"
		} else if force {
			hint = "move these files away in the VM: git does not track them, so they can't be saved"
		}
		err = &banger.Error{Kind: banger.ErrConflict, Err: blocked, Hint: hint}
	}
	if err != nil {
		return nil, errors.Join(&banger.Error{Op: "update", Subject: record.GuestPath, Err: spaceIn(dir, err), Hint: banger.HintOf(err)}, u.Close())
	}
	slices.Sort(u.Written)
	slices.Sort(u.Removed)
	return u, nil
}

// Close removes what the update has on the host.
func (u *Update) Close() error {
	errs := []error{u.c.Close(), u.ship.Close()}
	for _, sub := range u.subs {
		errs = append(errs, sub.Close())
	}
	return errors.Join(errs...)
}

// plan decides about one repository and those below it.
func (u *Update) plan(ctx context.Context, guest Guest, p Plan, prefix string, force bool, blocked *Blocked) error {
	u.begin(p, prefix)
	u.whole = true
	if p.Directory {
		u.rules = rules{base: u.record.contents()}
		if err := u.compareHost(ctx, p); err != nil {
			return err
		}
		return u.files(ctx, guest, blocked)
	}
	u.index = true
	if err := u.atRest(); err != nil {
		return err
	}
	stays, err := u.commits(ctx, p, force, blocked)
	if err != nil {
		return err
	}
	u.rules = rules{base: u.record.contents(), other: map[string]blobRef{}, force: force}
	if stays[u.c.refs.head] {
		u.rules.other = u.c.state.head
	}
	if err := u.compareHost(ctx, p); err != nil {
		return err
	}
	if err := u.files(ctx, guest, blocked); err != nil {
		return err
	}
	if err := u.staged(ctx, blocked); err != nil {
		return err
	}
	if err := u.pack(ctx, p, stays); err != nil {
		return err
	}
	if err := u.setRefs(); err != nil {
		return err
	}
	for i, sub := range p.Subs {
		if err := u.submodule(ctx, guest, sub, i, force, blocked); err != nil {
			return fmt.Errorf("submodule %s: %w", sub.Path, err)
		}
	}
	return nil
}

// compareHost finds out what the plan's files are, unless it is known.
func (u *Update) compareHost(ctx context.Context, p Plan) (err error) {
	if u.host == nil {
		u.host, err = p.contents(ctx, u.record.Sent)
	}
	return err
}

func (u *Update) begin(p Plan, prefix string) {
	u.ship.plan, u.ship.prefix, u.ship.clean, u.ship.sent, u.ship.now = p, prefix, map[string]bool{}, Manifest{}, time.Now()
}

// setRefs decides which refs are written.
func (u *Update) setRefs() error {
	p := u.ship.plan
	if branch := p.branch(); branch != "" && p.Start != "" && u.c.refs.byName["heads/"+branch] != p.Start {
		if err := u.setRef("heads/"+branch, p.Start); err != nil {
			return err
		}
	}
	if r := p.Repo; r.Upstream != "" && u.c.refs.remotes["origin/"+r.Branch] == "" {
		if err := u.setRef("remotes/origin/"+r.Branch, r.Upstream); err != nil {
			return err
		}
	}
	if text := u.ship.head(); text != u.headText() {
		u.set = append(u.set, setRef{"HEAD", text}) // the last one
		u.tellSwitch()
	}
	return nil
}

// tellSwitch notes that the guest is on another branch afterwards.
func (u *Update) tellSwitch() {
	on := func(branch, id string) string {
		if branch != "" {
			return "branch " + branch
		}
		return fmt.Sprintf("no branch, at %.12s", id)
	}
	what, was := "it", u.c.refs.branch
	if u.ship.prefix != "" {
		what = "the submodule " + u.ship.prefix
	}
	text := fmt.Sprintf("%s was on %s: now it is on %s", what, on(was, u.c.refs.head), on(u.ship.plan.branch(), u.ship.plan.Start))
	if id := u.c.refs.byName["heads/"+was]; was != "" && id != "" {
		text += fmt.Sprintf("; %s stays there, at %.12s", was, id)
	}
	u.Notices = append(u.Notices, text)
}

// headText is the guest's HEAD as far as it is understood.
func (u *Update) headText() string {
	if u.c.refs.branch != "" {
		return "ref: refs/heads/" + u.c.refs.branch + "\n"
	}
	return u.c.refs.head + "\n"
}

// setRef has a ref written. Errors: ErrConflict when one of the guest's has a name that is a directory of it, or the other way round.
func (u *Update) setRef(name, id string) error {
	for _, names := range []map[string]string{u.c.refs.byName, prefixed("remotes/", u.c.refs.remotes)} {
		for other := range names {
			if strings.HasPrefix(other, name+"/") || strings.HasPrefix(name, other+"/") {
				return &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("the VM has a ref %s: there can be none that is called %s", other, name), Hint: "rename one of the two branches"}
			}
		}
	}
	u.set = append(u.set, setRef{"refs/" + name, id + "\n"})
	return nil
}

func prefixed(prefix string, names map[string]string) map[string]string {
	all := map[string]string{}
	for name, id := range names {
		all[prefix+name] = id
	}
	return all
}

// atRest refuses a repository that git is at work in, or that something of is not understood.
func (u *Update) atRest() error {
	conflict := func(hint, format string, args ...any) error {
		return &banger.Error{Kind: banger.ErrConflict, Op: "update", Subject: u.record.GuestPath, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	for _, mark := range marks {
		if _, ok := u.c.meta[mark.file]; ok {
			return conflict("end it there, or give it up", "a %s is under way in the VM", mark.what)
		}
	}
	for _, lock := range []string{"index.lock", "HEAD.lock", "packed-refs.lock", "shallow.lock"} {
		if _, ok := u.c.meta[lock]; ok {
			return conflict("try again; if no git runs there, remove that file", "git is at work in the VM: .git/%s", lock)
		}
	}
	if u.c.linked {
		return conflict("choose another --guest-path", "its .git leads to another repository of the VM")
	}
	if u.c.noIndex != nil {
		return conflict("git update-index --no-split-index, there", "its index can't be read: %w", u.c.noIndex)
	}
	return nil
}

// commits looks for those that a ref would no longer lead to. It gives those commits of the guest that the host has.
func (u *Update) commits(ctx context.Context, p Plan, force bool, blocked *Blocked) (map[string]bool, error) {
	refs := u.c.refs
	ids := append(slices.Collect(maps.Values(refs.byName)), slices.Collect(maps.Values(refs.remotes))...)
	if refs.head != "" {
		ids = append(ids, refs.head)
	}
	stays, err := p.Repo.onHost(ctx, ids)
	if err != nil || force {
		return stays, err
	}
	atStake := map[string]bool{}
	if id := refs.byName["heads/"+p.branch()]; p.branch() != "" && id != "" && id != p.Start {
		atStake[id] = true
	}
	if refs.branch == "" && refs.head != "" && refs.head != p.Start {
		atStake[refs.head] = true
	}
	for id := range atStake {
		if stays[id] {
			continue
		}
		text, err := git{env: u.c.g.env}.feed(ctx, id+"\n", append([]string{"log", "--stdin", "--format=%h %s", "--max-count=1000", "--not"}, u.hostTips(ctx, p)...)...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			blocked.Commits = append(blocked.Commits, strings.TrimSuffix(line, "\n"))
		}
	}
	return stays, nil
}

// hostTips gives what a list of the guest's own commits leaves out: no more than a command line holds.
func (u *Update) hostTips(ctx context.Context, p Plan) (tips []string) {
	text, err := git{dir: p.Repo.Root}.output(ctx, "for-each-ref", "--count=1000", "--sort=-committerdate", "--format=%(objectname) %(objecttype)", "refs/heads", "refs/remotes")
	if err != nil {
		return nil // the list is longer then
	}
	for line := range strings.Lines(text) {
		if id, ok := strings.CutSuffix(line, " commit\n"); ok {
			tips = append(tips, id)
		}
	}
	if p.Repo.Head != "" {
		tips = append(tips, p.Repo.Head)
	}
	return tips
}

// pack makes the pack of what the guest lacks.
func (u *Update) pack(ctx context.Context, p Plan, stays map[string]bool) error {
	guest := has{ends: u.c.refs.ends}
	for _, id := range slices.Sorted(maps.Keys(stays)) {
		if stays[id] {
			guest.commits = append(guest.commits, id)
		}
	}
	var tips, blobs []string
	for _, id := range []string{p.Start, p.Repo.Upstream} {
		if id != "" && !slices.Contains(tips, id) {
			tips = append(tips, id)
		}
	}
	for _, e := range u.ship.plan.entries {
		if e.Mode != modeSubmodule && u.c.state.index[e.Path].id != e.ID {
			blobs = append(blobs, e.ID+" "+e.Path)
		}
	}
	var err error
	u.ship.pack, err = p.Repo.makeDelta(ctx, u.ship.dir, tips, blobs, guest, p.Options.FullHistory)
	return err
}

// submodule decides about a submodule: an update like that of the whole, or what goes in for the first time.
func (u *Update) submodule(ctx context.Context, guest Guest, sub Sub, n int, force bool, blocked *Blocked) error {
	dir := filepath.Join(u.ship.dir, fmt.Sprint(n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	record, prefix := u.record.sub(sub.Path), path.Join(u.ship.prefix, sub.Path)
	record.HostPath = sub.Plan.Repo.Root
	c, err := Look(ctx, guest, record, force)
	if errors.Is(err, banger.ErrNotFound) {
		return u.freshSubmodule(ctx, sub, dir, prefix, blocked)
	}
	if err != nil {
		return err
	}
	below := &Update{ship: &Shipment{dir: dir}, c: c, record: record}
	u.subs = append(u.subs, below)
	if err := below.plan(ctx, guest, sub.Plan, prefix, force, blocked); err != nil {
		return err
	}
	u.Written, u.Removed, u.Kept = append(u.Written, below.Written...), append(u.Removed, below.Removed...), append(u.Kept, below.Kept...)
	u.Notices = append(u.Notices, below.Notices...)
	return nil
}

func (u *Update) freshSubmodule(ctx context.Context, sub Sub, dir, prefix string, blocked *Blocked) error {
	for _, name := range slices.Sorted(maps.Keys(u.c.state.all)) {
		if node := u.c.state.all[name]; below(name, sub.Path) && node.Kind != tree.Dir && !slices.Contains(u.removed, name) {
			blocked.Files = append(blocked.Files, path.Join(u.ship.prefix, name))
		}
	}
	ship, err := sub.Plan.prepare(ctx, dir, prefix, nil)
	if err != nil {
		return err
	}
	u.fresh = append(u.fresh, ship)
	for _, name := range sub.Plan.Files() {
		u.Written = append(u.Written, path.Join(prefix, name))
	}
	return nil
}

// sub is what is remembered of a submodule.
func (r Record) sub(name string) Record {
	if sub, ok := r.Subs[name]; ok {
		return sub
	}
	return Record{Workspace: banger.Workspace{GuestPath: path.Join(r.GuestPath, name)}}
}
