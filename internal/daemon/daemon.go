// Package daemon is the owner daemon's side of the API: who asks, what is asked, and how the answer streams back.
//
// Requests of other users are refused before a byte of them is read. Each request gets an operation id that stands in every log
// line, in the answer's header and in errors.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"time"

	"banger"
	"banger/api"
	"banger/internal/proc"
)

const (
	// maxBody bounds a request's body: environment and labels of a VM.
	maxBody = 1 << 20
	// headerTimeout bounds how long a connection may take for a request's header.
	headerTimeout = 10 * time.Second
	// undoPatience bounds how long the end waits for cancelled operations: the next start removes what they leave.
	undoPatience = 15 * time.Second
	// lastWords bounds how long clients are told of those.
	lastWords = time.Second
)

// VMs is what the lifecycle manager does for the API.
type VMs interface {
	Create(ctx context.Context, req api.CreateRequest, holder *proc.Handle, progress banger.ProgressFunc) (banger.VM, error)
	Start(ctx context.Context, ref string, req api.StartRequest, progress banger.ProgressFunc) (banger.VM, error)
	Stop(ctx context.Context, ref string, timeout time.Duration, progress banger.ProgressFunc) (banger.VM, error)
	Delete(ctx context.Context, ref string, force bool, progress banger.ProgressFunc) (banger.VM, error)
	Discard(ctx context.Context, ref string, progress banger.ProgressFunc) (banger.VM, error)
	List(ctx context.Context) ([]banger.VM, error)
	Show(ctx context.Context, ref string) (api.VMDetail, error)
	Detail(ctx context.Context, vm banger.VM) api.VMDetail
	ShowImage(ctx context.Context, ref string) (api.ImageDetail, error)
	DeleteImage(ctx context.Context, ref string) (banger.Image, error)
	DeleteKernel(ctx context.Context, name string) (banger.Kernel, error)
	PruneImages(ctx context.Context, all, dryRun bool) (api.Pruned, error)
	Stats(ctx context.Context, refs []string) (api.Stats, error)
	Verbs
	Files
}

// Images is what the image manager does for the API.
type Images interface {
	List() ([]banger.Image, error)
	Import(ctx context.Context, req api.ImportRequest, progress banger.ProgressFunc) (banger.Image, error)
	Build(ctx context.Context, req api.BuildRequest, progress banger.ProgressFunc) (banger.Image, error)
	Pull(ctx context.Context, req api.PullRequest, progress banger.ProgressFunc) (banger.Image, error)
	Register(ctx context.Context, req api.RegisterRequest, progress banger.ProgressFunc) (banger.Image, error)
	Promote(ctx context.Context, ref string, progress banger.ProgressFunc) (banger.Image, error)
	Export(ctx context.Context, ref string, w io.Writer) error
	PruneCache(dryRun bool) (api.Pruned, error)
}

// Config wires a Server.
type Config struct {
	VMs      VMs
	Images   Images
	Kernels  Kernels
	Catalog  Catalog
	Saves    Saves
	Status   func(ctx context.Context) (api.Status, error)
	Settings func(ctx context.Context) ([]banger.Setting, error)
	Shutdown func() // asked to end: returns at once
	// Identify names the process behind a process id of a peer.
	Identify func(pid int) (proc.Handle, error)
	Log      *slog.Logger
}

// Server answers on one unix socket.
type Server struct {
	Config
	http       *http.Server
	operations operations
	serving    context.Context // ends with Close
	end        context.CancelFunc
}

// New makes a Server. It does no I/O.
func New(cfg Config) *Server {
	s := &Server{Config: cfg, operations: operations{log: cfg.Log}}
	s.serving, s.end = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.operation(s.routes()),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, conn.(*peerConn).pid)
		},
	}
	return s
}

// Serve answers until Close. The listener is closed then.
func (s *Server) Serve(l *net.UnixListener, uid int) error {
	if err := s.http.Serve(&peerListener{UnixListener: l, uid: uid, log: s.Log}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

// Close stops taking requests and waits, until ctx ends, for operations and those that are being answered. Then it cancels operations,
// waits until they are undone, and cuts off who still listens.
func (s *Server) Close(ctx context.Context) {
	s.end()
	var drained sync.WaitGroup
	drained.Go(func() { s.operations.drain(ctx, undoPatience) })
	err := s.http.Shutdown(ctx)
	drained.Wait()
	if err == nil {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	if s.http.Shutdown(last) != nil {
		s.http.Close()
	}
}

const staleDaemon = "client and daemon are of different versions: banger daemon stop"

// versioned refuses a client of another API version.
func versioned(s *Server, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get(api.VersionHeader); got != strconv.Itoa(api.Version) {
			s.refuse(w, r, &banger.Error{Kind: banger.ErrUnsupported, Op: "API version", Subject: strconv.Quote(got),
				Err: fmt.Errorf("this daemon speaks %d", api.Version), Hint: staleDaemon})
			return
		}
		next(w, r)
	}
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.Log.InfoContext(r.Context(), "refused", "request", r.Method+" "+r.URL.Path, "kind", banger.KindName(err), "err", err)
	writeError(w, err, banger.OperationOf(r.Context()))
}

// writeError answers with an error of the operation opID.
func writeError(w http.ResponseWriter, err error, opID string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(api.StatusOf(err))
	_ = json.NewEncoder(w).Encode(banger.EncodeError(err, opID))
}

// decode reads a request's body: one JSON value without unknown fields. An empty body is the zero value; none is left alone.
func decode[Q any](w http.ResponseWriter, r *http.Request) (req Q, err error) {
	if reflect.TypeFor[Q]() == reflect.TypeFor[none]() {
		return req, nil
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil && !errors.Is(err, io.EOF) {
		return req, &banger.Error{Kind: banger.ErrInvalid, Op: "decode request", Err: err}
	}
	if dec.More() {
		return req, banger.Invalidf("decode request: something follows the JSON value")
	}
	return req, nil
}

// ownRoutes are those of the daemon itself.
func (s *Server) ownRoutes(rs *routes) {
	answer(rs, api.RouteStatus, func(r *http.Request, _ none) (api.Status, error) {
		status, err := s.Status(r.Context())
		status.Ops = s.operations.count()
		return status, err
	})
	answer(rs, api.RouteSettings, func(r *http.Request, _ none) ([]banger.Setting, error) { return s.Settings(r.Context()) })
	rs.raw(api.RouteOpenAPI, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(api.OpenAPI)
	})
}

func (s *Server) create(r *http.Request, req api.CreateRequest) (work, error) {
	var holder *proc.Handle
	if req.Remove {
		if detach, _ := boolParam(r, api.DetachParam); detach {
			return work{}, banger.Invalidf("a VM that is deleted with its client can't be made without it")
		}
		handle, err := s.holder(r)
		if err != nil {
			return work{}, err
		}
		holder = &handle
	}
	return s.vmWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Create(ctx, req, holder, progress)
	}), nil
}

// holder is the process that asks.
func (s *Server) holder(r *http.Request) (proc.Handle, error) {
	pid, _ := r.Context().Value(peerKey{}).(int)
	if pid == 0 { // a process of another pid namespace
		return proc.Handle{}, &banger.Error{Kind: banger.ErrUnsupported, Op: "lease", Err: errors.New("the daemon can't see the client's process"),
			Hint: "leave out --rm"}
	}
	handle, err := s.Identify(pid)
	if err != nil {
		return proc.Handle{}, fmt.Errorf("lease: %w", err)
	}
	return handle, nil
}

func (s *Server) delete(r *http.Request, _ none) (work, error) {
	force, err := boolParam(r, api.ForceParam)
	if err != nil {
		return work{}, err
	}
	discard, err := boolParam(r, api.DiscardParam)
	if err != nil {
		return work{}, err
	}
	return s.vmVerb(r, func(ctx context.Context, ref string, progress banger.ProgressFunc) (banger.VM, error) {
		if discard {
			return s.VMs.Discard(ctx, ref, progress)
		}
		return s.VMs.Delete(ctx, ref, force, progress)
	}), nil
}

// operation gives each request its operation id and logs how it ended.
func (s *Server) operation(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := newOperationID()
		ctx := banger.WithOperation(r.Context(), id)
		w.Header().Set(api.OpIDHeader, id)
		start := time.Now()
		next.ServeHTTP(w, r.WithContext(ctx))
		s.Log.DebugContext(ctx, "request", "request", r.Method+" "+r.URL.Path, "elapsed", time.Since(start).String())
	})
}
