package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"banger"
	"banger/api"
	"banger/client"
)

// operation is what is done to one VM. The reference is its id.
type operation func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error)

// maxAtOnce bounds how many VMs one command works on at a time: each takes a connection to the daemon.
const maxAtOnce = 200

// batch is one command on several VMs, each once, in the order in which they were first named.
type batch struct {
	targets []api.ResolvedVM
	details []api.VMDetail
	errs    []error
}

// each runs op on all VMs at once and tells their names in the order given. One that fails does not stop the others.
func (a *app) each(ctx context.Context, refs []string, op operation) ([]api.VMDetail, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b, err := newBatch(ctx, c, refs)
	if err != nil {
		return nil, err
	}
	a.runBatch(ctx, c, b, op)
	return a.finishBatch(b, vmName)
}

// newBatch finds out what all references stand for at one moment.
func newBatch(ctx context.Context, c *client.Client, refs []string) (*batch, error) {
	resolved, err := c.ResolveVMs(ctx, refs)
	if err != nil {
		return nil, err
	}
	b := &batch{}
	seen := map[string]bool{}
	for _, target := range resolved {
		key := or(string(target.ID), "?"+target.Ref)
		if seen[key] {
			continue
		}
		seen[key] = true
		b.targets = append(b.targets, target)
		var err error
		if target.Error != nil {
			err = target.Error.Decode()
		}
		b.errs = append(b.errs, err)
	}
	b.details = make([]api.VMDetail, len(b.targets))
	return b, nil
}

// runBatch runs op on every VM that nothing is known to be wrong with.
func (a *app) runBatch(ctx context.Context, c *client.Client, b *batch, op operation) {
	show, end := a.progress()
	defer end()
	turns := make(chan struct{}, maxAtOnce)
	var group sync.WaitGroup
	for i, target := range b.targets {
		if b.errs[i] != nil {
			continue
		}
		group.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			var err error
			b.details[i], err = op(ctx, c, string(target.ID), named(show, target.Name, len(b.targets) > 1))
			b.errs[i] = goesOn(err)
		})
	}
	group.Wait()
}

// goesOn tells a client that was interrupted how to hear of the operation that it leaves.
func goesOn(err error) error {
	e, ok := errors.AsType[*banger.Error](err)
	if !ok || e.OpID == "" || !errors.Is(err, context.Canceled) {
		return err
	}
	told := *e
	told.Hint = "the daemon goes on with it: banger ops wait " + e.OpID
	return &told
}

// finishBatch shows what was done, a line for each VM, and gives all that went wrong.
func (a *app) finishBatch(b *batch, line func(api.VMDetail) string) ([]api.VMDetail, error) {
	done, failed := b.outcome()
	if err := a.printVMs(done, line); err != nil {
		return done, err
	}
	return done, failed
}

// outcome is what was done, and all that went wrong.
func (b *batch) outcome() (done []api.VMDetail, err error) {
	var failed failures
	for i, err := range b.errs {
		switch {
		case errors.Is(err, errSkipped):
		case err != nil:
			failed = append(failed, err)
		default:
			done = append(done, b.details[i])
		}
	}
	if failed == nil {
		return done, nil
	}
	return done, failed
}

// errSkipped is a VM to which nothing is done, since a person did not want it: no failure.
var errSkipped = errors.New("left alone")

// named tells the VMs of one command apart in their progress.
func named(show banger.ProgressFunc, name string, several bool) banger.ProgressFunc {
	if show == nil || !several {
		return show
	}
	return func(p banger.Progress) {
		p.Stage = name + " " + p.Stage
		show(p)
	}
}

func vmName(vm api.VMDetail) string { return vm.Spec.Name }

// printVMs writes a line for each VM: its id when little is wanted.
func (a *app) printVMs(list []api.VMDetail, line func(api.VMDetail) string) error {
	if a.json {
		return a.printJSON(slices.Concat([]api.VMDetail{}, list))
	}
	for _, vm := range list {
		text := line(vm)
		if a.quiet {
			text = string(vm.ID)
		}
		if _, err := fmt.Fprintln(a.Out, escape(text)); err != nil {
			return err
		}
	}
	return nil
}
