package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"banger"
)

// Repo is a repository on the host as git tells it.
type Repo struct {
	Root      string // absolute path of the work tree
	GitDir    string // of this work tree
	CommonDir string // of all its work trees
	Head      string // object id; "" before the first commit
	Branch    string // "main"; "" when HEAD is detached
	Origin    string // URL of the remote "origin" without secrets; "" when there is none
	Upstream  string // object id of origin/Branch; "" when it is not known
	UserName  string // user.name and user.email of this repository only, not of the user
	UserEmail string
	Busy      string   // "rebase", "merge", "cherry-pick", "revert", "bisect": what is under way
	shallow   []string // commits whose parents the repository does not have
}

// isObjectID tells a SHA-1 in hexadecimal.
func isObjectID(text string) bool {
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(text) == 40
}

// errNotRepo says that no repository encloses a path.
var errNotRepo = errors.New("not in a git repository")

// Inspect finds the repository that encloses path. Errors: ErrNotFound when path is not there, or is in no repository (see
// [IsNoRepo]); ErrUnsupported for bare repositories and those with SHA-256 names; ErrUnavailable without git.
func Inspect(ctx context.Context, path string) (Repo, error) {
	dir, err := filepath.Abs(path)
	if err != nil {
		return Repo{}, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return Repo{}, &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: path, Err: err}
	}
	if !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	g := git{dir: dir}
	text, err := g.output(ctx, "rev-parse", "--is-bare-repository", "--is-inside-git-dir", "--absolute-git-dir")
	if err != nil {
		return Repo{}, notRepo(path, err)
	}
	bare, rest, _ := strings.Cut(text, "\n")
	inside, gitDir, _ := strings.Cut(rest, "\n")
	switch {
	case bare == "true":
		return Repo{}, &banger.Error{Kind: banger.ErrUnsupported, Op: "workspace", Subject: path, Err: fmt.Errorf("%s is a bare repository: it has no files to work on", strings.TrimSpace(gitDir)),
			Hint: "git clone it, or: git worktree add"}
	case inside == "true":
		return Repo{}, &banger.Error{Kind: banger.ErrUnsupported, Op: "workspace", Subject: path, Err: errors.New("it is inside a .git directory"), Hint: "name the directory above"}
	}
	var repo Repo
	for _, question := range []struct {
		into *string
		args []string
	}{
		{&repo.Root, []string{"rev-parse", "--show-toplevel"}},
		{&repo.GitDir, []string{"rev-parse", "--absolute-git-dir"}},
		{&repo.CommonDir, []string{"rev-parse", "--path-format=absolute", "--git-common-dir"}},
	} {
		if *question.into, err = g.line(ctx, question.args...); err != nil {
			return Repo{}, notRepo(path, err)
		}
	}
	if err := checkVersion(repo.CommonDir); err != nil {
		return Repo{}, err
	}
	return repo, repo.fill(ctx)
}

// checkVersion tells by what git answers to --path-format=absolute whether it knows that: older ones repeat it. They lack
// "fetch --atomic", too. Errors: ErrUnsupported.
func checkVersion(answer string) error {
	if filepath.IsAbs(answer) {
		return nil
	}
	return &banger.Error{Kind: banger.ErrUnsupported, Op: "git", Err: errors.New("it is older than 2.31, which repositories in machines need"), Hint: "git --version"}
}

func notRepo(path string, err error) error {
	if errors.Is(err, banger.ErrUnavailable) || errors.Is(err, banger.ErrInterrupted) {
		return err
	}
	reason := err
	if text := err.Error(); strings.Contains(text, "not a git repository") {
		reason = errNotRepo
	}
	return &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: path, Err: reason}
}

// IsNoRepo tells an existing path that is in no repository.
func IsNoRepo(err error) bool { return errors.Is(err, errNotRepo) }

// fill asks for all but the paths.
func (r *Repo) fill(ctx context.Context) (err error) {
	g := git{dir: r.Root}
	format, err := g.ask(ctx, "rev-parse", "--show-object-format")
	if err != nil {
		return err
	}
	if format != "sha1" {
		return &banger.Error{Kind: banger.ErrUnsupported, Op: "workspace", Subject: r.Root, Err: fmt.Errorf("its objects have %s names", format)}
	}
	if r.Head, err = g.ask(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err != nil {
		return err
	}
	if r.Branch, err = g.ask(ctx, "symbolic-ref", "--quiet", "--short", "HEAD"); err != nil {
		return err
	}
	origin, err := g.ask(ctx, "config", "--get", "remote.origin.url")
	if err != nil {
		return err
	}
	r.Origin = withoutSecrets(origin)
	if r.Branch != "" {
		if r.Upstream, err = g.ask(ctx, "rev-parse", "--verify", "--quiet", "refs/remotes/origin/"+r.Branch+"^{commit}"); err != nil {
			return err
		}
	}
	if r.UserName, err = g.ask(ctx, "config", "--local", "--get", "user.name"); err != nil {
		return err
	}
	if r.UserEmail, err = g.ask(ctx, "config", "--local", "--get", "user.email"); err != nil {
		return err
	}
	r.Busy = r.underWay()
	return r.readShallow()
}

// marks are files in a .git directory while a command is not ended.
var marks = []struct{ file, what string }{
	{"rebase-merge", "rebase"}, {"rebase-apply", "rebase"}, {"MERGE_HEAD", "merge"}, {"CHERRY_PICK_HEAD", "cherry-pick"},
	{"REVERT_HEAD", "revert"}, {"BISECT_LOG", "bisect"},
}

// underWay looks for the marks of commands that were not ended.
func (r *Repo) underWay() string {
	for _, mark := range marks {
		if _, err := os.Lstat(filepath.Join(r.GitDir, mark.file)); err == nil {
			return mark.what
		}
	}
	return ""
}

func (r *Repo) readShallow() error {
	text, err := os.ReadFile(filepath.Join(r.CommonDir, "shallow"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if id := strings.TrimSpace(line); isObjectID(id) {
			r.shallow = append(r.shallow, id)
		}
	}
	return err
}

// withoutSecrets leaves out the user and the password of a URL; the user of an ssh address stays.
func withoutSecrets(remote string) string {
	u, err := url.Parse(remote)
	if err != nil || u.Scheme == "" || u.User == nil {
		return remote
	}
	if u.Scheme == "ssh" || strings.HasSuffix(u.Scheme, "+ssh") {
		u.User = url.User(u.User.Username())
	} else {
		u.User = nil
	}
	return u.String()
}

// file is one path of a work tree that may travel. Paths are relative to the root, with slashes.
type file struct {
	path    string
	mode    uint32 // of the index: 0o100644, 0o100755, 0o120000 or 0o160000 (a submodule); 0 for what git does not track
	id      string // of the index
	stage   byte   // '0', or '1' to '3' of a conflict
	absent  bool   // skip-worktree: sparse checkout leaves it out on purpose
	ignored bool
}

// tracked lists the index.
func (r *Repo) tracked(ctx context.Context) ([]file, error) {
	var files []file
	err := git{dir: r.Root}.each(ctx, func(entry string) error {
		f, err := parseStaged(entry)
		files = append(files, f)
		return err
	}, "ls-files", "-z", "-v", "--stage", "--full-name")
	return files, err
}

// parseStaged reads "H 100644 <id> 0\tpath", as git ls-files -v --stage prints it.
func parseStaged(entry string) (file, error) {
	head, path, ok := strings.Cut(entry, "\t")
	fields := strings.Fields(head)
	if !ok || len(fields) != 4 || len(fields[3]) != 1 || !isObjectID(fields[2]) {
		return file{}, fmt.Errorf("%w: git ls-files says %.200q", banger.ErrCorrupt, entry)
	}
	mode, err := strconv.ParseUint(fields[1], 8, 32)
	if err != nil {
		return file{}, fmt.Errorf("%w: git ls-files says mode %q", banger.ErrCorrupt, fields[1])
	}
	return file{path: path, mode: uint32(mode), id: fields[2], stage: fields[3][0], absent: strings.EqualFold(fields[0], "s")}, nil
}

// untracked lists what git neither tracks nor ignores.
func (r *Repo) untracked(ctx context.Context) ([]file, error) {
	return r.others(ctx, false, "--exclude-standard")
}

// ignoredLike lists ignored files that match any of the patterns, which are pathspecs of git's glob kind.
func (r *Repo) ignoredLike(ctx context.Context, patterns []string) ([]file, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	args := []string{"--ignored", "--exclude-standard", "--"}
	for _, pattern := range patterns {
		args = append(args, ":(top,glob)"+pattern, ":(top,glob)"+strings.TrimSuffix(pattern, "/")+"/**")
	}
	return r.others(ctx, true, args...)
}

func (r *Repo) others(ctx context.Context, ignored bool, args ...string) ([]file, error) {
	var out bytes.Buffer
	if err := (git{dir: r.Root}).run(ctx, nil, &out, slices.Concat([]string{"ls-files", "-z", "--others", "--full-name"}, args)...); err != nil {
		return nil, err
	}
	var files []file
	for path := range strings.SplitSeq(out.String(), "\x00") {
		if path != "" {
			files = append(files, file{path: path, ignored: ignored}) // "dir/" is a repository of its own
		}
	}
	return files, nil
}
