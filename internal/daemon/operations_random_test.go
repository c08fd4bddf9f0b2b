package daemon_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/api"
	"banger/client"
)

// Clients that ask, detach, follow, cancel and leave at random leave no operation running, none undecided, and no goroutine.
func TestRandomClients(t *testing.T) {
	s := serve(t, os.Getuid())
	s.vms.making = func(ctx context.Context, progress banger.ProgressFunc) error {
		for range rand.IntN(5) {
			progress.Begin("stage", "x")()
			progress.Notice("stage", "y")
		}
		if rand.IntN(3) > 0 {
			return nil
		}
		<-ctx.Done()
		progress.Begin("late", "z")
		return ctx.Err()
	}
	before := runtime.NumGoroutine()
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 20 {
				s.actRandomly(t)
			}
		})
	}
	clients.Wait()
	c := s.other(t)
	list, err := c.Operations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range list { // those that were detached and wait for their end
		if _, err := c.CancelOperation(t.Context(), op.ID); err != nil && !errors.Is(err, banger.ErrConflict) {
			t.Errorf("CancelOperation: %v", err)
		}
	}
	if list, err = c.Operations(t.Context()); err != nil || len(list) == 0 {
		t.Fatalf("Operations = %v, %v", list, err)
	}
	for _, op := range list {
		if ended := op.State == api.OperationDone && op.Result != nil || op.State == api.OperationCancelled && op.Error != nil; !ended || op.EndedAt.IsZero() {
			t.Errorf("%+v is neither done nor cancelled", op)
		}
	}
	c.Close()
	now, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	s.Server.Close(now) // also connections that a client made and did not use before it left
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// actRandomly is one client that does one thing.
func (s *served) actRandomly(t *testing.T) {
	c, err := client.DialExisting(t.Context(), client.Config{StateDir: s.dir.Root})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	list, err := c.Operations(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	some := "op-nosuch"
	if len(list) > 0 {
		some = list[rand.IntN(len(list))].ID
	}
	perhapsLeave := func(banger.Progress) {
		if rand.IntN(3) == 0 {
			leave()
		}
	}
	switch rand.IntN(4) {
	case 0:
		ctx, leave = context.WithTimeout(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
		defer leave()
		_, err = c.CreateVM(ctx, api.CreateRequest{Name: "x"}, perhapsLeave)
	case 1:
		ctx, leave = context.WithTimeout(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
		defer leave()
		_, err = c.Detach(ctx, api.RouteVMCreate, api.CreateRequest{Name: "x"})
	case 2:
		ctx, leave = context.WithTimeout(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
		defer leave()
		_, err = c.WaitOperation(ctx, some, perhapsLeave)
	case 3:
		_, err = c.CancelOperation(ctx, some)
	}
	if err != nil && !errors.Is(err, banger.ErrInterrupted) && !errors.Is(err, banger.ErrNotFound) && !errors.Is(err, banger.ErrConflict) {
		t.Errorf("a client got %v", err)
	}
}
