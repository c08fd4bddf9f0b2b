package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/guest"
	"banger/internal/machine"
)

// requestTimeout is for a client's first line.
const requestTimeout = 10 * time.Second

var errEnded = errors.New("the run has ended")

// server answers on machine.sock.
type server struct {
	*run
	work sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (r *run) serve() *server {
	s := &server{run: r, conns: map[net.Conn]bool{}}
	s.work.Go(func() {
		for {
			conn, err := machine.Accept(r.Listener)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				r.Log.Error("accept a client", "err", err)
				return
			}
			s.work.Go(func() { s.handle(conn) })
		}
	})
	return s
}

// drain lets the answers that are on their way arrive.
func (s *server) drain() {
	s.Listener.Close()
	hurry := time.AfterFunc(drainTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for conn := range s.conns {
			conn.Close()
		}
	})
	defer hurry.Stop()
	s.work.Wait()
}

func (s *server) handle(conn *net.UnixConn) {
	s.mu.Lock()
	s.conns[conn] = true
	s.mu.Unlock()
	defer func() {
		conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
	}()
	r := bufio.NewReader(conn)
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	req, err := machine.ReadRequest(r)
	conn.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, banger.ErrInvalid):
		err = refuse(conn, err)
	case err != nil:
	case req.Exec != nil:
		defer s.streaming()()
		err = s.exec(conn, r, *req.Exec)
	case req.Attach != nil:
		defer s.streaming()()
		err = s.attach(conn, r)
	case req.Connect != nil:
		defer s.streaming()()
		err = s.connect(conn, r, req.Connect.Port)
	default:
		err = s.answer(conn, r, req)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.Log.Debug("serve a client", "err", err)
	}
}

func refuse(w io.Writer, err error) error {
	body := banger.EncodeError(err, "")
	return machine.WriteResponse(w, machine.Response{Error: &body})
}

// answer serves the requests whose client sends nothing after its first line.
func (s *server) answer(conn net.Conn, r io.Reader, req machine.Request) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, r)
		cancel()
	}()
	var resp machine.Response
	switch {
	case req.Console != nil:
		return sendRing(ctx, conn, s.ring, *req.Console)
	case req.NetLog != nil:
		return sendRing(ctx, conn, s.network.ring, *req.NetLog)
	case req.Status != nil:
		status := s.snapshot()
		resp.Status = &status
	case req.Stats != nil:
		stats, err := s.stats()
		if err != nil {
			return refuse(conn, err)
		}
		resp.Stats = &stats
	case req.Ready != nil:
		if !await(ctx, s.settled) {
			return ctx.Err()
		}
		status := s.snapshot()
		resp.Status = &status
	case req.Init != nil:
		if !await(ctx, s.settled) || !s.awaitInit(ctx) {
			return ctx.Err()
		}
		status := s.snapshot()
		resp.Status = &status
	case req.Ports != nil:
		ports, err := s.ports.list(ctx, req.Ports.Open)
		if err != nil {
			return refuse(conn, err)
		}
		resp.Ports = &ports
	case req.Signal != nil:
		if err := s.signal(req.Signal.Signal); err != nil {
			return refuse(conn, err)
		}
	case req.SetNet != nil:
		s.Log.Info("network policy", "policy", req.SetNet.Policy.String())
		s.setNet(req.SetNet.Policy.Or(banger.NetFull))
	case req.Rename != nil:
		if err := s.rename(ctx, req.Rename.Name); err != nil {
			return refuse(conn, err)
		}
	default:
		if req.Shutdown != nil {
			s.Log.Info("shutdown", "timeout", req.Shutdown.Timeout)
			s.work.Go(func() { s.shutdown(req.Shutdown.Timeout) })
		}
		if !await(ctx, s.ended) {
			return ctx.Err()
		}
		resp.Exit = s.snapshot().Exit
	}
	return machine.WriteResponse(conn, resp)
}

// await tells whether done was closed before ctx ended.
func await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// awaitInit waits, within bounds, for the init of a guest that is ready. It tells whether that was done before ctx ended.
func (s *server) awaitInit(ctx context.Context) bool {
	if s.Machine.Boot != banger.BootSystem {
		return true
	}
	s.mu.Lock()
	left := time.Until(s.readyAt.Add(s.InitPatience))
	s.mu.Unlock()
	patience := time.NewTimer(left)
	defer patience.Stop()
	select {
	case <-s.initUp:
	case <-s.ended:
	case <-patience.C:
	case <-ctx.Done():
		return false
	}
	return true
}

func sendRing(ctx context.Context, conn net.Conn, ring *machine.Ring, req machine.ConsoleRequest) error {
	from, err := ring.Start(req)
	if err != nil {
		return refuse(conn, err)
	}
	if err := machine.WriteResponse(conn, machine.Response{Console: &machine.ConsoleAnswer{From: from}}); err != nil {
		return err
	}
	if req.Follow {
		return ring.Follow(ctx, from, conn)
	}
	return ring.Copy(from, conn)
}

func (s *server) exec(conn net.Conn, r *bufio.Reader, req banger.ExecRequest) error {
	return machine.ServeExec(conn, r, func(ctx context.Context, stdio machine.Stdio) (banger.ExecResult, error) {
		if err := s.awaitGuest(ctx); err != nil {
			return banger.ExecResult{}, err
		}
		client, err := s.link.get(ctx)
		if err != nil {
			return banger.ExecResult{}, err
		}
		return client.Exec(ctx, req, guest.Stdio(stdio))
	})
}

// awaitGuest waits until the guest is ready. Errors: ErrUnavailable when the run ends instead.
func (r *run) awaitGuest(ctx context.Context) error {
	if !await(ctx, r.settled) {
		return &banger.Error{Kind: banger.ErrInterrupted, Op: "wait for the guest", Err: context.Cause(ctx)}
	}
	if exit := r.snapshot().Exit; exit != nil {
		return &banger.Error{Kind: banger.ErrUnavailable, Op: "wait for the guest", Err: fmt.Errorf("%w: %s", errEnded, exit.Detail)}
	}
	return nil
}

// connect leads a client to a port of the guest.
func (s *server) connect(conn *net.UnixConn, r *bufio.Reader, port uint32) error {
	if err := s.awaitGuest(context.Background()); err != nil {
		return refuse(conn, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		if await(ctx, s.ended) {
			cancel()
		}
	}()
	dialled, err := channel.Dial(ctx, s.dir.GuestSocket(), port)
	if err != nil {
		return refuse(conn, err)
	}
	guestEnd := dialled.(*net.UnixConn)
	defer guestEnd.Close()
	if err := machine.WriteResponse(conn, machine.Response{}); err != nil {
		return err
	}
	join(conn, r, guestEnd)
	return nil
}

// join copies both ways between a client, of whom r has read the beginning, and what it asked for, until both ends have
// finished.
func join(conn *net.UnixConn, r io.Reader, far interface {
	net.Conn
	CloseWrite() error
}) {
	var in sync.WaitGroup
	in.Go(func() {
		_, _ = channel.Copy(far, r)
		far.CloseWrite()
	})
	if _, err := channel.Copy(conn, far); err != nil { // the client is gone
		far.Close()
	}
	conn.CloseWrite()
	in.Wait()
}
