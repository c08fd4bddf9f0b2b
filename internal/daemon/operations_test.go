package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/api"
	"banger/client"
)

// gate is work that tells that it has begun, and ends when it is let go or cancelled; it undoes what it made then.
type gate struct {
	progress banger.Progress
	begun    chan struct{}
	open     chan struct{}
	mu       sync.Mutex
	undone   error // why
}

func newGate() *gate {
	return &gate{progress: banger.Progress{Stage: "image", Text: "pulling", Subject: "devbox"}, begun: make(chan struct{}), open: make(chan struct{})}
}

func (g *gate) run(ctx context.Context, progress banger.ProgressFunc) error {
	progress.Report(g.progress)
	close(g.begun)
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		g.undone = context.Cause(ctx)
		return ctx.Err()
	}
}

func (g *gate) cause() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Sprint(g.undone)
}

// other is another client of the same daemon.
func (s *served) other(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.DialExisting(t.Context(), client.Config{StateDir: s.dir.Root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (s *served) detach(t *testing.T, name string) api.Operation {
	t.Helper()
	op, err := s.Detach(t.Context(), api.RouteVMCreate, api.CreateRequest{Name: name})
	if err != nil {
		t.Fatalf("Detach: %v", err)
	}
	return op
}

func TestDetached(t *testing.T) {
	s := serve(t, os.Getuid())
	g := newGate()
	s.vms.making = g.run
	op := s.detach(t, "")
	if op.Kind != "create vm" || op.Subject != "devbox" || op.State != api.OperationRunning || !op.Detached || op.ClientPID != os.Getpid() || len(op.Stages) != 1 {
		t.Errorf("Detach = %+v, want a running creation with the name that it was given", op)
	}
	s.Client.Close() // its client is gone
	c := s.other(t)
	if list, err := c.Operations(t.Context()); err != nil || len(list) != 1 || list[0].ID != op.ID || list[0].State != api.OperationRunning {
		t.Errorf("Operations = %+v, %v", list, err)
	}
	for _, ref := range []string{op.ID[:9], strings.TrimPrefix(op.ID, "op-")} {
		if got, err := c.ShowOperation(t.Context(), ref); err != nil || got.ID != op.ID {
			t.Errorf("ShowOperation(%q) = %+v, %v", ref, got, err)
		}
	}
	close(g.open)
	var told []string
	last, err := c.WaitOperation(t.Context(), op.ID, func(p banger.Progress) { told = append(told, p.Text) })
	if err != nil || last.VM == nil || last.VM.ID != "000000000001" || len(told) != 1 || told[0] != "pulling" {
		t.Errorf("WaitOperation = %+v, %v, told %q", last, err, told)
	}
	if got, err := c.ShowOperation(t.Context(), op.ID); err != nil || got.State != api.OperationDone || got.Result == nil || got.EndedAt.IsZero() {
		t.Errorf("ShowOperation of one that ended = %+v, %v", got, err)
	}
}

// What can be refused at once is, whether or not a client waits; what fails later is told to who asks.
func TestDetachedFails(t *testing.T) {
	s := serve(t, os.Getuid())
	taken := &banger.Error{Kind: banger.ErrConflict, Op: "create vm", Subject: "devbox", Hint: "another name"}
	s.vms.making = func(context.Context, banger.ProgressFunc) error { return taken }
	_, err := s.Detach(t.Context(), api.RouteVMCreate, api.CreateRequest{Name: "devbox"})
	if !errors.Is(err, banger.ErrConflict) || banger.HintOf(err) != "another name" {
		t.Errorf("Detach = %v, want the conflict", err)
	}
	_, err = s.Detach(t.Context(), api.RouteVMCreate, api.CreateRequest{Name: "devbox", Remove: true})
	if !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("Detach with a lease = %v, want invalid", err)
	}
	g := newGate()
	s.vms.making = func(ctx context.Context, progress banger.ProgressFunc) error {
		return errors.Join(g.run(ctx, progress), taken)
	}
	op := s.detach(t, "devbox")
	close(g.open)
	var e *banger.Error
	if _, err := s.WaitOperation(t.Context(), op.ID, nil); !errors.Is(err, banger.ErrConflict) || !errors.As(err, &e) || e.OpID != op.ID {
		t.Errorf("WaitOperation = %#v, want the conflict with the id of the operation", err)
	}
	if op, err := s.ShowOperation(t.Context(), op.ID); err != nil || op.State != api.OperationFailed || op.Error == nil || op.Error.Kind != "conflict" {
		t.Errorf("ShowOperation = %+v, %v", op, err)
	}
}

// An operation that nobody detached ends with its client, also for others who wait for it.
func TestClientLeaves(t *testing.T) {
	s := serve(t, os.Getuid())
	g := newGate()
	s.vms.making = g.run
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := s.CreateVM(ctx, api.CreateRequest{Name: "x"}, nil)
		left <- err
	}()
	<-g.begun
	c := s.other(t)
	list, err := c.Operations(t.Context())
	if err != nil || len(list) != 1 || list[0].Detached {
		t.Fatalf("Operations = %+v, %v", list, err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := c.WaitOperation(t.Context(), list[0].ID, func(banger.Progress) { leave() })
		waiting <- err
	}()
	if err := <-left; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("CreateVM = %v, want interrupted", err)
	}
	if err := <-waiting; !errors.Is(err, banger.ErrInterrupted) || !strings.Contains(err.Error(), "create vm devbox: its client left") {
		t.Errorf("WaitOperation = %v, want interrupted", err)
	}
	if !strings.Contains(g.cause(), "client left") {
		t.Errorf("the work ended for %v", g.cause())
	}
	if op, err := c.ShowOperation(t.Context(), list[0].ID); err != nil || op.State != api.OperationCancelled {
		t.Errorf("ShowOperation = %+v, %v", op, err)
	}
}

func TestCancel(t *testing.T) {
	s := serve(t, os.Getuid())
	for stage := range 4 {
		g := newGate()
		s.vms.making = func(ctx context.Context, progress banger.ProgressFunc) error {
			for i := range stage {
				progress.Begin(fmt.Sprint("stage", i), "before")()
			}
			return g.run(ctx, progress)
		}
		op := s.detach(t, "x")
		<-g.begun
		two := make(chan error, 2)
		for range cap(two) {
			go func() {
				_, err := s.WaitOperation(t.Context(), op.ID, nil)
				two <- err
			}()
		}
		got, err := s.CancelOperation(t.Context(), op.ID)
		if err != nil || got.State != api.OperationCancelled || len(got.Stages) != stage+1 || !strings.Contains(g.cause(), "cancelled") {
			t.Errorf("stage %d: CancelOperation = %+v, %v, the work ended for %s", stage, got, err, g.cause())
		}
		for range cap(two) {
			if err := <-two; !errors.Is(err, banger.ErrInterrupted) || !strings.Contains(err.Error(), "create vm devbox: it was cancelled") {
				t.Errorf("stage %d: a waiter got %v", stage, err)
			}
		}
		if _, err := s.CancelOperation(t.Context(), op.ID); err != nil {
			t.Errorf("stage %d: cancelled again: %v", stage, err)
		}
	}
}

func TestNotCancelled(t *testing.T) {
	s := serve(t, os.Getuid())
	ctx := t.Context()
	if _, err := s.CancelOperation(ctx, "op-0"); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "ops list") {
		t.Errorf("CancelOperation of none = %v (hint %q)", err, banger.HintOf(err))
	}
	s.vms.making = func(ctx context.Context, progress banger.ProgressFunc) error {
		progress.Begin("disk", "x")
		<-ctx.Done()
		return nil // it was too late
	}
	op := s.detach(t, "x")
	for range 2 {
		if _, err := s.CancelOperation(ctx, op.ID); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "it is done") {
			t.Errorf("CancelOperation of one that was done = %v, want a conflict", err)
		}
	}
	s.vms.making = func(ctx context.Context, progress banger.ProgressFunc) error {
		progress.Begin("disk", "x")
		<-ctx.Done()
		return &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("can't undo")}
	}
	op = s.detach(t, "x")
	if _, err := s.CancelOperation(ctx, op.ID); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "can't undo") {
		t.Errorf("CancelOperation of one that failed = %v", err)
	}
}

// A start, stop or delete goes on when its client leaves, and can't be cancelled.
func TestInsists(t *testing.T) {
	s := serve(t, os.Getuid())
	g := newGate()
	s.vms.starting = g.run
	ctx, leave := context.WithCancel(t.Context())
	_, interrupted := s.StartVM(ctx, "devbox", api.StartRequest{}, func(banger.Progress) { leave() })
	c := s.other(t)
	list, err := c.Operations(t.Context())
	if err != nil || len(list) != 1 || list[0].State != api.OperationRunning {
		t.Fatalf("Operations = %+v, %v", list, err)
	}
	var e *banger.Error
	if !errors.Is(interrupted, banger.ErrInterrupted) || !errors.As(interrupted, &e) || e.OpID != list[0].ID {
		t.Errorf("StartVM = %#v, want interrupted with the id %s", interrupted, list[0].ID)
	}
	if _, err := c.CancelOperation(t.Context(), list[0].ID); !errors.Is(err, banger.ErrConflict) || banger.HintOf(err) != "banger vm stop devbox" {
		t.Errorf("CancelOperation = %v (hint %q)", err, banger.HintOf(err))
	}
	close(g.open)
	if last, err := c.WaitOperation(t.Context(), list[0].ID, nil); err != nil || last.VM == nil {
		t.Errorf("WaitOperation = %+v, %v", last, err)
	}
}

func TestOperationsAreBounded(t *testing.T) {
	s := serve(t, os.Getuid())
	ctx := t.Context()
	for range 120 {
		if _, err := s.StartVM(ctx, "devbox", api.StartRequest{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Operations(ctx)
	if err != nil || len(list) < 100 || len(list) > 101 { // the last one may not be counted yet
		t.Errorf("%d operations are remembered (%v), want 100", len(list), err)
	}
	ambiguous := 0
	for _, digit := range "0123456789abcdef" { // of 100 ids some begin alike
		if _, err := s.ShowOperation(ctx, "op-"+string(digit)); errors.Is(err, banger.ErrInvalid) {
			ambiguous++
		}
	}
	if _, err := s.ShowOperation(ctx, "op-"); ambiguous == 0 || !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("%d beginnings are ambiguous; of all: %v", ambiguous, err)
	}
}

// Work that tells nothing keeps a client that detaches it for a moment only.
func TestSilentWork(t *testing.T) {
	s := serve(t, os.Getuid())
	s.vms.making = func(ctx context.Context, _ banger.ProgressFunc) error {
		<-ctx.Done()
		return ctx.Err()
	}
	op := s.detach(t, "x")
	if op.State != api.OperationRunning || op.Subject != "x" {
		t.Errorf("Detach = %+v", op)
	}
	if _, err := s.CancelOperation(t.Context(), op.ID); err != nil {
		t.Errorf("CancelOperation: %v", err)
	}
}

// What a request names may be long; what is kept of it is not.
func TestLongSubject(t *testing.T) {
	s := serve(t, os.Getuid())
	for _, ref := range []string{strings.Repeat("x", 100_000), strings.Repeat("é", 50_001)} {
		if _, err := s.PullImage(t.Context(), api.PullRequest{Ref: ref, Name: "app"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Operations(t.Context())
	if err != nil || len(list) != 2 || len(list[0].Subject) != 256 || list[1].Subject != strings.Repeat("é", 128) {
		t.Errorf("Operations = %.600v, %v", list, err)
	}
}

// A client that does not read keeps nobody waiting.
func TestStuckClient(t *testing.T) {
	s := serve(t, os.Getuid())
	s.vms.making = func(_ context.Context, progress banger.ProgressFunc) error {
		end := progress.Begin("disk", strings.Repeat("x", 1000))
		for i := range 5000 {
			progress.Notice("disk", strings.Repeat("x", 1000))
			progress.Report(banger.Progress{Stage: "disk", Bytes: int64(i)})
		}
		end()
		return nil
	}
	conn, err := net.Dial("unix", s.dir.DaemonSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /v1/vms HTTP/1.1\r\nHost: x\r\n"+api.VersionHeader+": 1\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	for {
		list, err := s.Operations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			continue // not yet
		}
		if last, err := s.WaitOperation(t.Context(), list[0].ID, nil); err != nil || last.VM == nil {
			t.Errorf("WaitOperation = %+v, %v", last, err)
		}
		return
	}
}

func TestShutdownAsks(t *testing.T) {
	s := serve(t, os.Getuid())
	ctx := t.Context()
	s.vms.making = newGate().run
	op := s.detach(t, "")
	err := s.shutdown(ctx, false)
	if !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), op.ID+" create vm devbox") || !strings.Contains(banger.HintOf(err), "--force") {
		t.Errorf("shutdown = %v (hint %q), want a conflict that names the operation", err, banger.HintOf(err))
	}
	if _, err := s.CancelOperation(ctx, op.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.shutdown(ctx, false); err != nil {
		t.Errorf("shutdown with nothing to do: %v", err)
	}
	<-s.ends
	if _, err := s.Detach(ctx, api.RouteVMCreate, api.CreateRequest{}); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "the daemon ends") {
		t.Errorf("a request after that = %v", err)
	}
}

func TestShutdownForced(t *testing.T) {
	s := serve(t, os.Getuid())
	g := newGate()
	s.vms.making = g.run
	op := s.detach(t, "")
	waiting := make(chan error, 1)
	following := make(chan struct{})
	go func() {
		_, err := s.other(t).WaitOperation(t.Context(), op.ID, func(banger.Progress) { close(following) })
		waiting <- err
	}()
	<-following
	if err := s.shutdown(t.Context(), true); err != nil {
		t.Errorf("shutdown by force: %v", err)
	}
	now, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	s.Server.Close(now)
	if err := <-waiting; !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "the daemon ends") || !strings.Contains(g.cause(), "the daemon ends") {
		t.Errorf("who waits gets %v, the work ended for %s", err, g.cause())
	}
}
