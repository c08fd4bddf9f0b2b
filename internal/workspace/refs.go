package workspace

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// refs are names and what they point to, as a guest has them. Everything else that a ref may be (a symbolic one) is left out.
type refs struct {
	head    string            // object id that HEAD means; "" before the first commit
	branch  string            // that HEAD names; "" when it is detached
	byName  map[string]string // "heads/main", "tags/v1" → object id
	stashes []string          // object ids, the oldest first
	others  []string          // object ids that are safe elsewhere: another work tree's, or those that a remote has
	remotes map[string]string // "origin/main" → object id: they never come back
	ends    []string          // of a shallow history
}

// ids gives all objects that are to be kept.
func (r *refs) ids() []string {
	ids := append(slices.Collect(maps.Values(r.byName)), r.stashes...)
	if r.head != "" {
		ids = append(ids, r.head)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// leaveToOthers keeps HEAD and its branch alone.
func (r *refs) leaveToOthers() {
	r.others = append(r.others, slices.Collect(maps.Values(r.byName))...)
	for name := range r.byName {
		if r.branch == "" || name != "heads/"+r.branch {
			delete(r.byName, name)
		}
	}
	r.stashes = nil
}

// addLoose takes the content of a file below refs.
func (r *refs) addLoose(name string, content []byte) {
	id := strings.TrimSpace(string(content))
	switch {
	case !isObjectID(id) || len(r.byName)+len(r.others) >= maxRefs:
	case kept(name):
		r.byName[name] = id
	case strings.HasPrefix(name, "remotes/"):
		r.others = append(r.others, id)
		r.remotes[strings.TrimPrefix(name, "remotes/")] = id
	}
}

// addPacked takes the content of packed-refs; what stands there loses against a file of its own.
func (r *refs) addPacked(content []byte) {
	for line := range bytes.Lines(content) {
		id, name, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		name, inRefs := strings.CutPrefix(name, "refs/")
		_, loose := r.byName[name]
		if remote, isRemote := strings.CutPrefix(name, "remotes/"); isRemote {
			_, loose = r.remotes[remote]
		}
		if ok && inRefs && !loose {
			r.addLoose(name, []byte(id))
		}
	}
}

// setHead takes the content of HEAD, when all other refs are known.
func (r *refs) setHead(content []byte) {
	text := strings.TrimSpace(string(content))
	name, symbolic := strings.CutPrefix(text, "ref: refs/heads/")
	switch {
	case symbolic && kept("heads/"+name):
		r.branch, r.head = name, r.byName["heads/"+name]
	case isObjectID(text):
		r.head = text
	}
}

// addStashes takes the reflog of refs/stash: each line begins with the old and the new object id.
func (r *refs) addStashes(content []byte) {
	for line := range bytes.Lines(content) {
		if fields := strings.Fields(string(line)); len(fields) > 1 && isObjectID(fields[1]) && len(r.stashes) < maxRefs {
			r.stashes = append(r.stashes, fields[1])
		}
	}
}

// kept tells the refs that are taken from a guest: branches, tags and the stash, with names that git allows.
func kept(name string) bool {
	return (strings.HasPrefix(name, "heads/") || strings.HasPrefix(name, "tags/") || name == "stash") && checkRefName(name) == nil
}

// checkRefName applies the rules of git-check-ref-format(1), and keeps control characters and what is not UTF-8's printable part out
// of names that people see.
func checkRefName(name string) error {
	bad := func(why string) error { return fmt.Errorf("ref %.100q: %s", name, why) }
	if name == "" || len(name) > 1024 || name == "@" || strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.Contains(name, "@{") {
		return bad("no name for a ref")
	}
	for _, c := range []byte(name) {
		if c < 0x21 || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return bad("a character that no ref may have")
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasPrefix(part, "-") || strings.HasSuffix(part, ".lock") {
			return bad("no part of it may be empty, begin with '.' or '-', or end with .lock")
		}
	}
	return nil
}
