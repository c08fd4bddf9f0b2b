package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

// Change asks for files to come into a directory that is there and for others to go: all of that, or nothing when anything there is not
// as it was when it was looked at. After the request's answer comes a stream with lines of [Step], then one with the tree.
type Change struct {
	Path  []byte `json:"path"`            // absolute
	Aside []byte `json:"aside,omitempty"` // directory below it in which what comes grows; empty: Path itself
}

// Step is what the asking side knows of a path that a Change is about. What comes without one finds nothing at its place.
type Step struct {
	Path   []byte `json:"p"`
	Was    *Node  `json:"w,omitempty"` // nil: nothing was there
	Remove bool   `json:"r,omitempty"`
}

// ChangeStaging is the name of the directory in which a Change grows. One that was cut off by the end of the machine leaves it, and the
// next one takes it away.
const ChangeStaging = ".banger-change"

// maxSteps bounds the bytes of all lines of steps.
const maxSteps = 1 << 30

// AskChange sends a Change to the guest's port for files, which conn is a connection to, and closes it. When the connection ends before all
// has been sent, nothing changes. Errors: those of src and of the guest, ErrConflict for what has changed meanwhile; ErrInterrupted;
// ErrUnavailable when the guest is gone: then it is not known what became of it.
func AskChange(ctx context.Context, conn Conn, change Change, steps []Step, src tree.Source) (Report, error) {
	return reported(deliver(ctx, conn, Request{Change: &change}, append([]Step{}, steps...), src))
}

func sendSteps(w io.Writer, steps []Step) error {
	out := newStreamWriter(w)
	buffered := bufio.NewWriterSize(out, maxFrame)
	enc := json.NewEncoder(buffered)
	for _, step := range steps {
		if err := enc.Encode(step); err != nil {
			return cutOff(err)
		}
	}
	if err := buffered.Flush(); err != nil {
		return cutOff(err)
	}
	if err := out.finish(end{}); err != nil {
		return cutOff(err)
	}
	return nil
}

// readSteps reads a stream of steps, each path once.
func readSteps(r *bufio.Reader) ([]Step, error) {
	stream := &streamReader{r: r}
	in := bufio.NewReader(io.LimitReader(stream, maxSteps))
	var steps []Step
	seen := map[string]bool{}
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 && stream.got != nil {
			return steps, nil
		}
		if err != nil {
			return nil, cutOff(err)
		}
		var step Step
		name := ""
		if err := json.Unmarshal(bytes.TrimSpace(line), &step); err == nil {
			name = string(step.Path)
		}
		if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." || seen[name] {
			return nil, banger.Invalidf("a step that is none: %.100q", line)
		}
		seen[name] = true
		steps = append(steps, step)
	}
}

// change answers a Change.
func (s Server) change(conn io.Writer, r *bufio.Reader, req Change) error {
	root := string(req.Path)
	if err := absolute(root); err != nil {
		return err
	}
	dir, err := OpenDir(root)
	if err != nil {
		return &banger.Error{Op: "change", Subject: root, Err: describe(err, root)}
	}
	defer dir.Close()
	owner, err := s.Owner()
	if err != nil {
		return err
	}
	if err := writeLine(conn, Answer{}); err != nil {
		return err
	}
	steps, err := readSteps(r)
	if err != nil {
		return err
	}
	src := ended(&streamReader{r: r}, Origin{Dir: true})
	report, err := dir.change(context.Background(), string(req.Aside), steps, src, Options{Owner: &owner, Sync: s.Sync})
	if err != nil {
		return &banger.Error{Op: "change", Subject: root, Err: describe(err, root)}
	}
	return writeLine(conn, Answer{Report: &report})
}

// changer carries out one Change.
type changer struct {
	root    int
	staging int
	dev     uint64 // of staging
	gone    map[string]bool
	order   []string // what comes, without directories
	made    []string // directories that come
	dirs    map[string]bool
}

func (d *Dir) change(ctx context.Context, aside string, steps []Step, src tree.Source, opts Options) (report Report, err error) {
	parent, err := Beneath(d.root, path.Clean("./"+aside))
	if err != nil {
		return report, &fs.PathError{Op: "open", Path: aside, Err: err}
	}
	defer unix.Close(parent)
	s, err := takeStaging(parent)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	c := &changer{root: d.root, staging: s.fd, gone: map[string]bool{}, dirs: map[string]bool{}}
	w := &writer{ctx: ctx, root: s.fd, opts: opts, report: &report, parent: -1}
	if err := w.write(tree.Filter(src, func(e *tree.Entry) bool {
		if e.Kind != tree.Dir {
			c.order = append(c.order, e.Path)
		} else if e.Path != "." {
			c.made = append(c.made, e.Path)
		}
		return true
	})); err != nil {
		return report, err
	}
	sync := func() error {
		if !opts.Sync {
			return nil
		}
		return unix.Syncfs(s.fd)
	}
	if err := sync(); err != nil {
		return report, fmt.Errorf("write to the disk: %w", err)
	}
	if err := c.check(steps); err != nil {
		return report, err
	}
	for _, step := range steps {
		if step.Remove {
			if err := d.Remove(string(step.Path)); err != nil {
				return report, err
			}
		}
	}
	for _, name := range append(c.order, c.made...) {
		if err := c.move(name); err != nil {
			return report, fmt.Errorf("%.300q: %w", name, err)
		}
	}
	return report, sync()
}

// takeStaging makes the directory in which a change grows, or takes over one that was left. Errors: ErrConflict while another change
// has it.
func takeStaging(parent int) (*staging, error) {
	s := &staging{parent: parent, name: ChangeStaging}
	if err := unix.Mkdirat(parent, s.name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	var err error
	if s.fd, err = openDir(parent, s.name, unix.O_NOFOLLOW); err != nil {
		return nil, err
	}
	if err := unix.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(s.fd)
		return nil, &banger.Error{Kind: banger.ErrConflict, Err: errors.New("another change of it is under way"), Hint: "wait until it is done"}
	}
	if err := empty(s.fd); err != nil {
		unix.Close(s.fd)
		return nil, err
	}
	return s, nil
}

// check makes sure that all is as the steps say, and that everything that comes can go to its place.
func (c *changer) check(steps []Step) error {
	var st unix.Stat_t
	if err := unix.Fstat(c.staging, &st); err != nil {
		return err
	}
	c.dev = st.Dev
	known := map[string]bool{}
	for _, step := range steps {
		name := string(step.Path)
		known[name] = true
		if step.Remove {
			c.gone[name] = true
		}
		now, err := nodeAt(c.root, name)
		if err != nil {
			return err
		}
		if step.Remove && now != nil && now.Kind == tree.Dir {
			return banger.Invalidf("%.300q is a directory: only files go", name)
		}
		if !step.Was.same(now) {
			return changedMeanwhile(name)
		}
	}
	for _, name := range c.order {
		if !known[name] {
			if now, err := nodeAt(c.root, name); err != nil || now != nil {
				return errors.Join(err, changedMeanwhile(name))
			}
		}
		if err := errors.Join(c.checkParents(name), c.checkTarget(name)); err != nil {
			return err
		}
	}
	for _, name := range c.made {
		if err := c.checkParents(path.Join(name, "x")); err != nil {
			return err
		}
	}
	return nil
}

func changedMeanwhile(name string) error {
	return &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("%.300q has changed meanwhile", name), Hint: "try again"}
}

// same compares what is there with what was there.
func (n *Node) same(now *Node) bool {
	if n == nil || now == nil {
		return n == now
	}
	if n.Kind == tree.Dir {
		return now.Kind == tree.Dir
	}
	return n.Kind == now.Kind && n.Mode == now.Mode && n.Ino == now.Ino && n.Size == now.Size && n.MTime == now.MTime && n.CTime == now.CTime
}

// nodeAt looks at a path below root; nil is for nothing.
func nodeAt(root int, at string) (*Node, error) {
	fd, err := OpenAt(root, at, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: at, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: at, Err: err}
	}
	n := nodeOf(at, &st)
	return &n, nil
}

// checkParents wants directories above a path, or nothing, or files that go.
func (c *changer) checkParents(name string) error {
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		if c.dirs[above] {
			return nil
		}
		fd, err := OpenAt(c.root, above, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) { // what it lies below is looked at next
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "open", Path: above, Err: err}
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		switch {
		case err != nil:
			return err
		case st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Dev != c.dev:
			return &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("another file system is mounted at %.300q", above)}
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			c.dirs[above] = true
		case !c.gone[above]:
			return &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("%.300q is no directory, and %.300q can't be below it", above, name)}
		}
	}
	return nil
}

// checkTarget wants nothing at a path, a file, or a directory with nothing in it but what goes.
func (c *changer) checkTarget(name string) error {
	node, err := nodeAt(c.root, name)
	if err != nil || node == nil || node.Kind == tree.File || node.Kind == tree.Symlink {
		return err
	}
	if node.Kind != tree.Dir {
		return &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("%.300q is no regular file", name)}
	}
	return c.checkEmpties(name, 0)
}

func (c *changer) checkEmpties(at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.300q: deeper than %d directories", at, maxDepth)
	}
	fd, err := Beneath(c.root, at)
	if err != nil {
		return err
	}
	names, err := namesIn(fd)
	unix.Close(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		child := path.Join(at, name)
		if c.gone[child] {
			continue
		}
		node, err := nodeAt(c.root, child)
		if err == nil && node != nil && node.Kind == tree.Dir {
			err = c.checkEmpties(child, depth+1)
		} else if err == nil {
			err = &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("a file can't replace the directory that %.300q is in", child)}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// move takes something that has come to its place: with the outermost directory of it that is not there yet. A directory that is there
// stays.
func (c *changer) move(name string) error {
	if node, err := nodeAt(c.staging, name); err != nil || node == nil {
		return err // it went with a directory before
	} else if node.Kind == tree.Dir {
		if there, err := nodeAt(c.root, name); err != nil || there != nil {
			return err
		}
	}
	top := name
	for i, r := range name {
		if r != '/' {
			continue
		}
		node, err := nodeAt(c.root, name[:i])
		if err != nil {
			return err
		}
		if node == nil {
			top = name[:i]
			break
		}
	}
	from, err := Beneath(c.staging, path.Dir(top))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := Beneath(c.root, path.Dir(top))
	if err != nil {
		return err
	}
	defer unix.Close(to)
	base := path.Base(top)
	err = rename(from, base, to, base, false)
	if errors.Is(err, unix.EISDIR) { // with nothing but empty directories in it
		if err = emptyChild(to, base); err == nil {
			err = rename(from, base, to, base, false)
		}
	}
	return err
}
