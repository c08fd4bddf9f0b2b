package daemon

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/api"
	"banger/internal/disk"
	"banger/internal/transfer"
)

// Files is what is done with the files of VMs that do not run.
type Files interface {
	ReadFiles(ctx context.Context, ref string, use func(context.Context, *disk.FS) error) error
	Lend(ctx context.Context, ref string, progress banger.ProgressFunc, ready func(banger.VM)) error
}

func (s *Server) fileRoutes(rs *routes) {
	rs.raw(api.RouteVMFiles, s.readFiles)
	rs.raw(api.RouteVMParts, s.readParts)
	rs.raw(api.RouteVMLend, s.lend)
}

// readFiles sends a tree. It is no operation: nothing is changed, and client or daemon end it.
func (s *Server) readFiles(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get(api.PathParam)
	follow, err := boolParam(r, api.FollowParam)
	if err == nil && !strings.HasPrefix(name, "/") {
		err = banger.Invalidf("path %.300q: want an absolute one", name)
	}
	out := &patient{w: w}
	if err == nil {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.serving, cancel)()
		err = s.VMs.ReadFiles(ctx, r.PathValue("ref"), func(ctx context.Context, tree *disk.FS) error {
			n, err := tree.Lookup(name, follow)
			if err != nil {
				return err
			}
			o := transfer.OriginOf(name, n.IsDir())
			defer context.AfterFunc(ctx, out.cut)()
			return transfer.Send(out, o, n.Source(o.Root()), nil)
		})
	}
	switch {
	case err == nil:
	case !out.sent:
		s.refuse(w, r, err)
	default: // the stream tells of it, unless it was cut off
		s.Log.WarnContext(r.Context(), "failed", "request", r.Method+" "+r.URL.Path, "kind", banger.KindName(err), "err", err)
	}
}

// sendPatience is how long a client may take nothing of what is sent to it: it keeps a VM from starting meanwhile.
const sendPatience = time.Minute

// patient is an answer that waits for its client within bounds.
type patient struct {
	w    http.ResponseWriter
	sent bool

	mu  sync.Mutex
	end bool
}

func (p *patient) Write(b []byte) (int, error) {
	if !p.sent {
		p.w.Header().Set("Content-Type", api.MediaFiles)
		p.w.Header().Set("Connection", "close") // which has deadlines now
	}
	p.sent = true
	p.deadline(time.Now().Add(sendPatience))
	return p.w.Write(b)
}

func (p *patient) deadline(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.end {
		_ = http.NewResponseController(p.w).SetWriteDeadline(at)
	}
}

// cut ends what is being written.
func (p *patient) cut() {
	p.deadline(time.Unix(1, 0))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = true
}

// lend keeps a VM running for as long as the request lasts. When the daemon ends first, the VM goes on and its borrower asks the next
// daemon for the stop.
func (s *Server) lend(w http.ResponseWriter, r *http.Request) {
	l := &loan{out: &events{w: w}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer context.AfterFunc(r.Context(), func() {
		if s.serving.Err() == nil {
			cancel()
		}
	})()
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- s.VMs.Lend(ctx, r.PathValue("ref"), func(p banger.Progress) { l.send(api.Event{Progress: &p}) }, func(vm banger.VM) {
			detail := s.VMs.Detail(ctx, vm)
			l.send(api.Event{VM: &detail})
		})
	}()
	var err error
	select {
	case err = <-ended:
	case <-s.serving.Done():
		err = errEnding
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	switch {
	case err == nil || r.Context().Err() != nil:
	case !l.out.sent:
		s.refuse(w, r, err)
	default:
		s.Log.WarnContext(r.Context(), "failed", "request", r.Method+" "+r.URL.Path, "kind", banger.KindName(err), "err", err)
		body := banger.EncodeError(err, banger.OperationOf(r.Context()))
		l.out.send(api.Event{Error: &body})
	}
}

// loan is a request whose lender may go on with its work when the request has ended.
type loan struct {
	mu   sync.Mutex
	out  *events
	over bool
}

func (l *loan) send(event api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.out.send(event)
	}
}
