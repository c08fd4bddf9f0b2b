package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"banger"
	"banger/client"
	"banger/internal/api"
)

// operation is what is done to one VM.
type operation func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error)

// each runs op on all VMs at once and tells their names in the order given. One that fails does not stop the others.
func (a *app) each(ctx context.Context, refs []string, op operation) ([]api.VMDetail, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if refs, err = distinct(ctx, c, refs); err != nil {
		return nil, err
	}
	show, end := a.progress()
	details, errs := make([]api.VMDetail, len(refs)), make([]error, len(refs))
	var group sync.WaitGroup
	for i, ref := range refs {
		group.Go(func() { details[i], errs[i] = op(ctx, c, ref, named(show, ref, len(refs) > 1)) })
	}
	group.Wait()
	end()

	done := []api.VMDetail{}
	var failed failures
	for i, err := range errs {
		if err != nil {
			failed = append(failed, err)
		} else {
			done = append(done, details[i])
		}
	}
	if err := a.printNames(done); err != nil {
		return done, err
	}
	if failed == nil {
		return done, nil
	}
	return done, failed
}

// distinct drops references to a VM that was named before.
func distinct(ctx context.Context, c *client.Client, refs []string) ([]string, error) {
	if len(refs) == 1 {
		return refs, nil
	}
	list, err := c.ListVMs(ctx)
	if err != nil {
		return nil, err
	}
	var kept []string
	seen := map[string]bool{}
	for _, ref := range refs {
		key := resolve(list, ref)
		if !seen[key] {
			kept = append(kept, ref)
		}
		seen[key] = true
	}
	return kept, nil
}

// resolve gives the id that ref stands for; ref itself when that is not clear: the daemon says why.
func resolve(list []banger.VM, ref string) string {
	var ids []string
	for _, vm := range list {
		if vm.Spec.Name == ref || string(vm.ID) == ref {
			return string(vm.ID)
		}
		if strings.HasPrefix(string(vm.ID), ref) {
			ids = append(ids, string(vm.ID))
		}
	}
	if len(ids) == 1 {
		return ids[0]
	}
	return ref
}

// named tells the VMs of one command apart in their progress.
func named(show banger.ProgressFunc, ref string, several bool) banger.ProgressFunc {
	if show == nil || !several {
		return show
	}
	return func(p banger.Progress) {
		p.Stage = ref + " " + p.Stage
		show(p)
	}
}

func (a *app) printNames(done []api.VMDetail) error {
	if a.json {
		return a.printJSON(done)
	}
	for _, vm := range done {
		name := vm.Spec.Name
		if a.quiet {
			name = string(vm.ID)
		}
		if _, err := fmt.Fprintln(a.Out, escape(name)); err != nil {
			return err
		}
	}
	return nil
}
