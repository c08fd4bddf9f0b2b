package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"banger"
)

// Pushed is what newer commits of the host became in a guest.
type Pushed struct {
	Branch  string   `json:"branch"`            // checked out on the host
	Head    string   `json:"head"`              // of the host's branch
	Ref     string   `json:"ref"`               // in the guest, which has that commit in any case
	Moved   bool     `json:"moved"`             // the guest's branch of this name is there too
	Written []string `json:"written,omitempty"` // files of its checkout
	Removed []string `json:"removed,omitempty"` // of its checkout likewise; absent: none
	Reason  string   `json:"reason,omitempty"`  // why the branch stays where it is
	Files   []string `json:"files,omitempty"`   // that are the reason
}

// Push prepares to bring the commits of the host's branch into a guest, which c is a copy of: as refs/remotes/host/BRANCH; the guest's
// branch follows when that loses nothing, and its checkout with it. The update owns c. Errors: ErrInvalid for a host without a branch
// or a commit.
func (r Repo) Push(ctx context.Context, guest Guest, c *Copy, record Record) (*Update, Pushed, error) {
	done := Pushed{Branch: r.Branch, Head: r.Head, Ref: "refs/remotes/host/" + r.Branch}
	if r.Branch == "" || r.Head == "" {
		return nil, done, errors.Join(&banger.Error{Kind: banger.ErrInvalid, Op: "push", Subject: r.Root, Err: errors.New("no branch with a commit is checked out there"), Hint: "git switch BRANCH"}, c.Close())
	}
	dir, err := os.MkdirTemp("", "banger-workspace-")
	if err != nil {
		return nil, done, errors.Join(spaceIn(os.TempDir(), err), c.Close())
	}
	u := &Update{ship: &Shipment{dir: dir}, c: c, record: record}
	if err := u.push(ctx, guest, r, &done); err != nil {
		return nil, done, errors.Join(&banger.Error{Op: "push to", Subject: record.GuestPath, Err: spaceIn(dir, err), Hint: banger.HintOf(err)}, u.Close())
	}
	return u, done, nil
}

func (u *Update) push(ctx context.Context, guest Guest, r Repo, done *Pushed) error {
	r.Upstream = "" // what origin has is the guest's to ask
	p := Plan{Repo: r, Start: r.Head, from: true}
	u.begin(p, "")
	stays, err := u.commits(ctx, p, true, &Blocked{})
	if err != nil {
		return err
	}
	tip, isHead := u.c.refs.byName["heads/"+r.Branch], u.c.refs.branch == r.Branch
	follows := tip == "" || tip == r.Head
	if !follows && stays[tip] {
		base, err := git{dir: r.Root}.ask(ctx, "merge-base", tip, r.Head)
		if err != nil {
			return err
		}
		follows = base == tip
	}
	switch {
	case !follows:
		done.Reason = fmt.Sprintf("the VM's %s has commits that it lacks", r.Branch)
	case isHead:
		if err := u.pushFiles(ctx, guest, p, done); err != nil {
			return err
		}
	}
	done.Moved = done.Reason == ""
	done.Written, done.Removed = u.Written, u.Removed
	if err := u.pack(ctx, u.ship.plan, stays); err != nil {
		return err
	}
	if u.c.refs.remotes["host/"+r.Branch] != r.Head {
		if err := u.setRef("remotes/host/"+r.Branch, r.Head); err != nil {
			return err
		}
	}
	if done.Moved && tip != r.Head {
		return u.setRef("heads/"+r.Branch, r.Head)
	}
	return nil
}

// pushFiles plans what the checkout becomes, unless it has changes where the commits have some.
func (u *Update) pushFiles(ctx context.Context, guest Guest, p Plan, done *Pushed) error {
	if err := u.atRest(); err != nil {
		done.Reason = errors.Unwrap(err).Error()
		return nil
	}
	if err := p.takeCommit(ctx); err != nil {
		return err
	}
	all, blocked := p, &Blocked{}
	u.ship.plan = p
	u.rules = rules{base: map[string]blobRef{}, other: u.record.contents(), keepFirst: true}
	for name, ref := range u.c.state.head {
		if ref.mode != modeSubmodule { // they have repositories of their own
			u.rules.base[name] = ref
		}
	}
	var err error
	if u.host, err = p.contents(ctx, nil); err != nil {
		return err
	}
	if err := u.files(ctx, guest, blocked); err != nil {
		return err
	}
	if err := u.staged(ctx, blocked); err != nil {
		return err
	}
	if blocked.any() {
		done.Files = append(blocked.Files, blocked.Staged...)
		slices.Sort(done.Files)
		done.Files = slices.Compact(done.Files)
		done.Reason = fmt.Sprintf("%d files are changed in the VM and by these commits", len(done.Files))
		u.Written, u.Removed, u.removed, u.Kept, u.kept, u.host = nil, nil, nil, nil, nil, nil
		all.entries, all.files = nil, nil
		u.ship.plan = all
		return nil
	}
	u.index, u.whole = true, true
	return nil
}
