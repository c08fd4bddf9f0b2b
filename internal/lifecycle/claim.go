package lifecycle

import (
	"context"
	"errors"
	"sync"

	"banger"
)

// errYield ends an operation that another one, asked for later, makes pointless: a start when the VM is to stop.
var errYield = errors.New("the VM was told to stop meanwhile")

// claims gives each VM to one operation at a time.
type claims struct {
	mu   sync.Mutex
	held map[banger.VMID]*claim
}

type claim struct {
	done   chan struct{}           // closed when released
	cancel context.CancelCauseFunc // nil: the operation is not to be interrupted
}

// take waits for the claim of a VM. The release must be called once.
func (c *claims) take(ctx context.Context, id banger.VMID) (release func(), err error) {
	return c.acquire(ctx, id, nil)
}

// takeYielding is take for an operation that interrupt may end by its context.
func (c *claims) takeYielding(ctx context.Context, id banger.VMID) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	release, err := c.acquire(ctx, id, cancel)
	if err != nil {
		cancel(nil)
		return nil, nil, err
	}
	return ctx, func() { release(); cancel(nil) }, nil
}

func (c *claims) acquire(ctx context.Context, id banger.VMID, cancel context.CancelCauseFunc) (func(), error) {
	mine := &claim{done: make(chan struct{}), cancel: cancel}
	for {
		c.mu.Lock()
		if c.held == nil {
			c.held = map[banger.VMID]*claim{}
		}
		other := c.held[id]
		if other == nil {
			c.held[id] = mine
		}
		c.mu.Unlock()
		if other == nil {
			return func() { c.release(id, mine) }, nil
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, &banger.Error{Kind: banger.ErrInterrupted, Op: "wait for another operation on vm", Subject: string(id), Err: context.Cause(ctx)}
		}
	}
}

func (c *claims) release(id banger.VMID, mine *claim) {
	c.mu.Lock()
	delete(c.held, id)
	c.mu.Unlock()
	close(mine.done)
}

// interrupt ends the operation that holds the claim if it yields.
func (c *claims) interrupt(id banger.VMID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if held := c.held[id]; held != nil && held.cancel != nil {
		held.cancel(errYield)
	}
}
