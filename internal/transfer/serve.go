package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strings"

	"banger"
	"banger/internal/tree"
)

// Server answers on the guest's port for files.
type Server struct {
	// Owner is whom files that come belong to.
	Owner func() (Owner, error)
	// Enter tells whether a directory on another device than what was asked for is part of the tree.
	Enter func(dev uint64) bool
	// Sync makes what comes durable before it is answered.
	Sync bool
	// ManyFiles is called before many files may be looked at or written, and what it gives afterwards. Optional. A Get is none: it reads, and a
	// large file as often as many.
	ManyFiles func() (done func())
	// BringUpToDate does what a Sync asks for. Optional: it is refused.
	BringUpToDate func(src tree.Source) (Synced, error)
	// Watch serves a directory until the connection ends, once begin has been called. Files that are new belong to owner.
	Watch func(conn net.Conn, r *bufio.Reader, dir string, owner Owner, begin func() error) error
}

// Serve answers the one request of a connection and closes it. Its end ends the work, and nothing half done is left.
func (s Server) Serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, readAhead)
	req, err := ReadRequest(r)
	if req.Get == nil && s.ManyFiles != nil {
		defer s.ManyFiles()()
	}
	switch {
	case err != nil:
	case req.Get != nil:
		err = s.get(conn, *req.Get)
	case req.Put != nil:
		err = s.put(conn, r, *req.Put)
	case req.Watch != nil:
		err = s.watch(conn, r, *req.Watch)
	case req.Remove != nil:
		err = s.remove(conn, r, *req.Remove)
	case req.Sync != nil:
		err = s.sync(conn, r)
	case req.Change != nil:
		err = s.change(conn, r, *req.Change)
	default:
		err = s.parts(conn, r, req)
	}
	if err != nil {
		_ = Refuse(conn, err) // a client that is gone needs no answer
	}
}

// get fails only before the answer.
func (s Server) get(conn net.Conn, req Get) error {
	name := string(req.Path)
	if err := absolute(name); err != nil {
		return err
	}
	var report Report
	o, src, err := Local(name, req.Follow, func(at string, dev uint64) bool {
		if s.Enter(dev) {
			return true
		}
		report.leave(at)
		return false
	})
	if err == nil {
		_ = Send(conn, o, src, &report) // the stream tells what went wrong; a client that is gone need not know
	}
	return err
}

// parts answers a Walk or Read.
func (s Server) parts(conn net.Conn, r *bufio.Reader, req Request) error {
	name := req.Dir()
	if err := absolute(name); err != nil {
		return err
	}
	dir, err := OpenDir(name)
	if err != nil {
		if req.Read != nil {
			_, _ = readNames(r) // a client that still writes would not see the answer
		}
		return &banger.Error{Op: "read", Subject: name, Err: describe(err, "")}
	}
	defer dir.Close()
	return ServeParts(context.Background(), conn, r, req, dir, s.Enter)
}

func absolute(name string) error {
	if !strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return banger.Invalidf("path %.300q: want an absolute one", name)
	}
	return nil
}

// Local gives the tree of a file or directory of this machine. A symbolic link is followed with follow, or when a slash ends its path.
// enter, if given, tells whether to go into a directory on another device.
func Local(name string, follow bool, enter func(at string, dev uint64) bool) (Origin, tree.Source, error) {
	stat := os.Lstat
	if follow || strings.HasSuffix(name, "/") {
		stat = os.Stat
	}
	info, err := stat(name)
	if err != nil {
		var at *os.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return Origin{}, nil, &banger.Error{Subject: name, Err: describe(err, "")}
	}
	o := OriginOf(name, info.IsDir())
	return o, tree.FromPath(name, o.Root(), follow, enter), nil
}

func (s Server) put(conn net.Conn, r *bufio.Reader, req Put) error {
	dest := string(req.Path)
	if err := errors.Join(absolute(dest), req.Origin.check()); err != nil {
		return err
	}
	if req.Parents {
		if err := os.MkdirAll(path.Dir(path.Clean(dest)), 0o755); err != nil {
			return &banger.Error{Subject: dest, Err: describe(err, dest)}
		}
	}
	place, err := Resolve(dest, req.Origin)
	if err != nil {
		return err
	}
	owner, err := s.Owner()
	if err != nil {
		return err
	}
	if err := writeLine(conn, Answer{}); err != nil {
		return err
	}
	stream := &streamReader{r: r}
	report, err := Write(context.Background(), place, req.Origin, ended(stream, req.Origin), Options{Owner: &owner, Archive: req.Archive, Sync: s.Sync})
	if err != nil {
		return err
	}
	return writeLine(conn, Answer{Report: &report})
}

// watch fails only before the answer.
func (s Server) watch(conn net.Conn, r *bufio.Reader, req Watch) error {
	dir := string(req.Path)
	if req.Version != WatchVersion {
		return &banger.Error{Kind: banger.ErrUnsupported, Op: "watch", Subject: dir, Err: fmt.Errorf("version %d, this agent knows %d", req.Version, WatchVersion), Hint: "restart the VM with banger vm restart"}
	}
	if err := absolute(dir); err != nil {
		return &banger.Error{Kind: banger.ErrUnsupported, Err: err}
	}
	owner, err := s.Owner()
	if err != nil {
		return err
	}
	begun := false
	err = s.Watch(conn, r, dir, owner, func() error {
		begun = true
		return writeLine(conn, Answer{})
	})
	if begun {
		return nil // who asked is gone, or has been told
	}
	return err
}
