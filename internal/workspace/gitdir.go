package workspace

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/tree"
)

// branch is the one that HEAD names in the guest; "" when it is detached.
func (p Plan) branch() string {
	if p.Options.Branch != "" {
		return p.Options.Branch
	}
	return p.Repo.Branch
}

// gitDir yields the .git directory: made anew, with nothing of the host's but objects, the patterns of info/exclude, and what the
// repository's address and its user are called. Of the files its index knows the content alone.
func (s *Shipment) gitDir() tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		send := func(name string, mode uint32, text string) bool {
			e := tree.Literal(filepath.Join(".git", name), mode, []byte(text))
			e.ModTime = s.now
			return yield(e, nil)
		}
		for _, dir := range []string{"", "info", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags", "refs/remotes"} {
			if !yield(tree.Directory(filepath.Join(".git", dir), 0o755), nil) {
				return
			}
		}
		for _, ending := range []string{".pack", ".idx"} {
			if !s.sendPack(ending, yield) {
				return
			}
		}
		if len(s.pack.shallow) > 0 && !send("shallow", 0o644, strings.Join(s.pack.shallow, "\n")+"\n") {
			return
		}
		index, err := s.Index(nil)
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		_ = send("index", 0o644, string(index)) && send("config", 0o644, s.config()) && send("info/exclude", 0o644, s.excluded()) && send("packed-refs", 0o644, s.packedRefs()) && send("HEAD", 0o644, s.head())
	}
}

// sendPack yields one file of the pack; false ends the stream.
func (s *Shipment) sendPack(ending string, yield func(tree.Entry, error) bool) bool {
	if s.pack.path == "" {
		return true
	}
	f, err := os.Open(s.pack.path + ending)
	if err != nil {
		yield(tree.Entry{}, err)
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		yield(tree.Entry{}, err)
		return false
	}
	return yield(tree.Entry{Path: ".git/objects/pack/" + s.pack.name() + ending, Kind: tree.File, Mode: 0o444, Size: info.Size(), ModTime: s.now, Content: f}, nil)
}

func (s *Shipment) head() string {
	if branch := s.plan.branch(); branch != "" {
		return "ref: refs/heads/" + branch + "\n"
	}
	return s.plan.Start + "\n"
}

func (s *Shipment) packedRefs() string {
	var refs []string
	if branch := s.plan.branch(); branch != "" && s.plan.Start != "" {
		refs = append(refs, s.plan.Start+" refs/heads/"+branch)
	}
	if r := s.plan.Repo; r.Upstream != "" {
		refs = append(refs, r.Upstream+" refs/remotes/origin/"+r.Branch)
	}
	return "# pack-refs with: sorted \n" + strings.Join(append(refs, ""), "\n")
}

// maxExclude bounds what travels of info/exclude, in bytes.
const maxExclude = 1 << 20

// excluded gives the host's info/exclude, so that what is ignored there is ignored here.
func (s *Shipment) excluded() string {
	f, err := os.OpenFile(filepath.Join(s.plan.Repo.CommonDir, "info", "exclude"), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxExclude {
		return ""
	}
	b := make([]byte, info.Size())
	n, _ := f.Read(b)
	return string(b[:n])
}

// config is the guest's configuration.
func (s *Shipment) config() string {
	var b strings.Builder
	b.WriteString("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n")
	for _, key := range slices.Sorted(maps.Keys(s.eol)) {
		fmt.Fprintf(&b, "\t%s = %s\n", strings.TrimPrefix(key, "core."), s.eol[key])
	}
	r := s.plan.Repo
	if r.Origin != "" {
		fmt.Fprintf(&b, "[remote \"origin\"]\n\turl = %s\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n", configValue(r.Origin))
	}
	if r.Upstream != "" && s.plan.Options.Branch == "" {
		fmt.Fprintf(&b, "[branch %s]\n\tremote = origin\n\tmerge = %s\n", configValue(r.Branch), configValue("refs/heads/"+r.Branch))
	}
	if r.UserName != "" || r.UserEmail != "" {
		b.WriteString("[user]\n")
		for _, pair := range [][2]string{{"name", r.UserName}, {"email", r.UserEmail}} {
			if pair[1] != "" {
				fmt.Fprintf(&b, "\t%s = %s\n", pair[0], configValue(pair[1]))
			}
		}
	}
	return b.String()
}

// configValue writes a value for git's configuration file.
func configValue(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`, "\x00", "").Replace(value) + `"`
}
