package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// Options say what of a repository travels.
type Options struct {
	Branch      string   // a new branch in the guest; empty: as on the host
	From        string   // what Branch begins at; empty: HEAD with the work tree as it is
	Untracked   bool     // what git neither tracks nor ignores, too
	Ignored     []string // globs of ignored files that travel all the same
	FullHistory bool     // all of it instead of the last [DefaultDepth] commits
}

// Plan is what travels into a guest, known before a byte is sent.
type Plan struct {
	Repo    Repo
	Options Options
	Start   string   // object id that HEAD has in the guest; "" before the first commit
	Notices []string // for the user
	Subs    []Sub    // submodules

	Directory bool // files alone: the guest gets no repository
	Readonly  bool // the guest's copy has no permission to write

	entries []indexEntry // of the index in the guest
	files   []file       // sorted by path
	from    bool         // files come from Start, not from the work tree
	dirs    []string     // that may have no file, sorted
}

// Sub is a submodule that is checked out.
type Sub struct {
	Path string // below the root of its parent
	Plan Plan
}

// Files gives the paths that travel, those of submodules too, sorted.
func (p Plan) Files() []string {
	var paths []string
	for _, f := range p.files {
		paths = append(paths, f.path)
	}
	for _, sub := range p.Subs {
		for _, name := range sub.Plan.Files() {
			paths = append(paths, path.Join(sub.Path, name))
		}
	}
	slices.Sort(paths)
	return paths
}

// MakePlan decides what of repo travels. It reads the repository only. Errors: ErrNotFound for a From that is no commit; ErrInvalid
// for options that do not go together or a bad branch name.
func MakePlan(ctx context.Context, repo Repo, options Options) (Plan, error) {
	p := Plan{Repo: repo, Options: options, Start: repo.Head}
	if err := p.checkBranch(ctx); err != nil {
		return Plan{}, err
	}
	if options.From != "" {
		start, err := (git{dir: repo.Root}).ask(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", options.From+"^{commit}")
		if err != nil {
			return Plan{}, err
		}
		if start == "" {
			return Plan{}, &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: repo.Root, Err: fmt.Errorf("--from %q is no commit of it", options.From), Hint: "git log"}
		}
		p.from, p.Start = start != repo.Head, start
	}
	if p.from {
		p.note("the files are those of %s; the work tree's edits stay on the host", options.From)
		return p, p.takeCommit(ctx) // git gives the files in the order of their paths
	}
	if repo.Busy != "" {
		p.note("a %s is under way in %s: files and history travel as they are, the %s itself does not", repo.Busy, repo.Root, repo.Busy)
	}
	if err := p.takeTracked(ctx); err != nil {
		return Plan{}, err
	}
	if err := p.takeOthers(ctx); err != nil {
		return Plan{}, err
	}
	slices.SortFunc(p.files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return p, nil
}

func (p *Plan) note(format string, args ...any) {
	p.Notices = append(p.Notices, fmt.Sprintf(format, args...))
}

func (p *Plan) checkBranch(ctx context.Context) error {
	branch := p.Options.Branch
	if branch == "" {
		if p.Options.From != "" {
			return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("--from names where a new branch begins"), Hint: "give --branch NAME too"}
		}
		return nil
	}
	if _, err := (git{dir: p.Repo.Root}).line(ctx, "check-ref-format", "--branch", branch); err != nil || strings.HasPrefix(branch, "@{") {
		return &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("--branch %q is no name for a branch", branch), Hint: "for example: --branch fix-login"}
	}
	return nil
}

// takeTracked takes the index and the files that it names, as they are in the work tree.
func (p *Plan) takeTracked(ctx context.Context) error {
	tracked, err := p.Repo.tracked(ctx)
	if err != nil {
		return err
	}
	lfs := 0
	for _, f := range tracked {
		if err := checkPath(f.path); err != nil {
			return err
		}
		p.entries = append(p.entries, indexEntry{Path: f.path, Mode: f.mode, ID: f.id, Stage: f.stage - '0', Skip: f.absent})
		if f.mode == modeSubmodule {
			if err := p.takeSubmodule(ctx, f.path); err != nil {
				return err
			}
			continue
		}
		if last := len(p.files) - 1; last >= 0 && p.files[last].path == f.path {
			continue // another stage of a conflict
		}
		kind, size := p.lookAt(f.path)
		if kind == fs.ModeDir || kind == fs.ModeIrregular {
			continue // deleted, or something else stands there
		}
		p.files = append(p.files, f)
		if kind == 0 && size < maxPointer && isPointer(filepath.Join(p.Repo.Root, f.path)) {
			lfs++
		}
	}
	if lfs > 0 {
		p.note("%d files are pointers of Git LFS: the guest gets the pointers, not the content (on the host: git lfs pull)", lfs)
	}
	return nil
}

// Modes of an index.
const (
	modeFile       = 0o100644
	modeExecutable = 0o100755
	modeSymlink    = 0o120000
	modeSubmodule  = 0o160000
)

// lookAt gives the type of a path below the root without following links: 0 for a file, fs.ModeSymlink, fs.ModeDir, and
// fs.ModeIrregular for all that can't travel or is not there.
func (p *Plan) lookAt(name string) (kind fs.FileMode, size int64) {
	info, err := os.Lstat(filepath.Join(p.Repo.Root, name))
	if err != nil {
		return fs.ModeIrregular, 0
	}
	switch kind := info.Mode().Type(); kind {
	case 0, fs.ModeSymlink, fs.ModeDir:
		return kind, info.Size()
	}
	return fs.ModeIrregular, 0
}

const (
	maxPointer   = 1024
	pointerStart = "version https://git-lfs.github.com/spec/"
)

// isPointer tells a pointer of Git LFS (its specification, "The Pointer").
func isPointer(name string) bool {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, len(pointerStart))
	n, _ := f.Read(b)
	return string(b[:n]) == pointerStart
}

// takeSubmodule plans a submodule, if it is checked out.
func (p *Plan) takeSubmodule(ctx context.Context, name string) error {
	root := filepath.Join(p.Repo.Root, name)
	if _, err := os.Lstat(filepath.Join(root, ".git")); err != nil {
		p.dirs = append(p.dirs, name)
		p.note("the submodule %s is not checked out: an empty directory (on the host: git submodule update --init)", name)
		return nil
	}
	repo, err := Inspect(ctx, root)
	if err != nil {
		return fmt.Errorf("submodule %s: %w", name, err)
	}
	options := p.Options
	options.Branch, options.From = "", ""
	sub, err := MakePlan(ctx, repo, options)
	if err != nil {
		return fmt.Errorf("submodule %s: %w", name, err)
	}
	for _, notice := range sub.Notices {
		p.note("submodule %s: %s", name, notice)
	}
	p.Subs = append(p.Subs, Sub{Path: name, Plan: sub})
	return nil
}

// takeOthers takes untracked and ignored files that were asked for, and counts those that stay.
func (p *Plan) takeOthers(ctx context.Context) error {
	untracked, err := p.Repo.untracked(ctx)
	if err != nil {
		return err
	}
	if !p.Options.Untracked {
		if len(untracked) > 0 {
			p.note("%d untracked files stay on the host (--include-untracked takes them)", len(untracked))
		}
		untracked = nil
	}
	ignored, err := p.Repo.ignoredLike(ctx, p.Options.Ignored)
	if err != nil {
		return err
	}
	if len(p.Options.Ignored) > 0 && len(ignored) == 0 {
		p.note("no ignored file is like %s", strings.Join(p.Options.Ignored, ", "))
	}
	for _, f := range append(untracked, ignored...) {
		if strings.HasSuffix(f.path, "/") {
			p.note("%s is a repository of its own: it stays on the host", f.path)
			continue
		}
		if err := checkPath(f.path); err != nil {
			return err
		}
		if kind, _ := p.lookAt(f.path); kind == 0 || kind == fs.ModeSymlink {
			p.files = append(p.files, f)
		}
	}
	return nil
}

// takeCommit takes the files of the commit Start.
func (p *Plan) takeCommit(ctx context.Context) error {
	return git{dir: p.Repo.Root}.each(ctx, func(entry string) error {
		f, err := parseTreeEntry(entry)
		if err == nil {
			err = checkPath(f.path)
		}
		if err != nil {
			return err
		}
		p.entries = append(p.entries, indexEntry{Path: f.path, Mode: f.mode, ID: f.id})
		if f.mode == modeSubmodule {
			p.dirs = append(p.dirs, f.path)
			p.note("the submodule %s is left empty: --from takes the files of one commit", f.path)
			return nil
		}
		p.files = append(p.files, f)
		return nil
	}, "ls-tree", "-r", "-z", "--full-tree", p.Start)
}

// parseTreeEntry reads "100644 blob <id>\tpath", as git ls-tree prints it.
func parseTreeEntry(entry string) (file, error) {
	head, name, ok := strings.Cut(entry, "\t")
	fields := strings.Fields(head)
	if !ok || len(fields) != 3 || !isObjectID(fields[2]) {
		return file{}, fmt.Errorf("%w: git ls-tree says %.200q", banger.ErrCorrupt, entry)
	}
	mode, err := strconv.ParseUint(fields[0], 8, 32)
	if err != nil {
		return file{}, fmt.Errorf("%w: git ls-tree says mode %q", banger.ErrCorrupt, fields[0])
	}
	return file{path: name, id: fields[2], mode: uint32(mode), stage: '0'}, nil
}

// checkPath refuses a path of a repository that would leave its work tree, or reach into a .git directory. Errors: ErrRefused.
func checkPath(name string) error {
	refuse := func(why string) error {
		return &banger.Error{Kind: banger.ErrRefused, Op: "path", Subject: fmt.Sprintf("%.200q", name), Err: errors.New(why)}
	}
	if name == "" || strings.ContainsRune(name, 0) || len(name) > maxPath {
		return refuse("it is empty, too long, or has a NUL byte")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return refuse("it is not clean")
		case isDotGit(part):
			return refuse("it reaches into a .git directory")
		}
	}
	return nil
}

const maxPath = 4096

// isDotGit tells names that some file system takes for ".git": other case, what NTFS strips, its short name, and characters that
// HFS+ passes over (git's path.c and utf8.c refuse the same).
func isDotGit(name string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	name, _, _ = strings.Cut(name, ":")
	name = strings.ToLower(strings.TrimRight(name, " ."))
	return name == ".git" || name == "git~1"
}
