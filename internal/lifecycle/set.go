package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"banger"
	"banger/api"
)

// Set changes what a VM is. Labels and when it is deleted or stopped for idleness change at once; its sizes and variables do while it does not
// run, and else at its next start. A disk grows: the file now or then, its file system when the guest boots. With dryRun nothing
// changes and nothing is waited for. All of a change is done or nothing.
// Errors: ErrInvalid for a value that no VM has; ErrConflict for a disk that would shrink.
func (m *Manager) Set(ctx context.Context, ref string, change banger.SpecChange, dryRun bool) (api.SetResult, error) {
	if dryRun {
		vm, err := m.Store.Get(ctx, ref)
		if err != nil {
			return api.SetResult{}, err
		}
		plan, err := m.planOf(vm, change)
		return api.SetResult{VM: vm, Changes: plan.changes}, err
	}
	var plan plan
	vm, err := m.detach(ctx, func(ctx context.Context) (banger.VM, error) {
		vm, err := m.Store.Get(ctx, ref)
		if err != nil {
			return banger.VM{}, err
		}
		release, err := m.claims.take(ctx, vm.ID)
		if err != nil {
			return vm, err
		}
		defer release()
		if vm, err = m.Store.Get(ctx, string(vm.ID)); err != nil {
			return vm, err
		}
		if plan, err = m.planOf(vm, change); err != nil {
			return vm, err
		}
		if err := plan.possible(); err != nil {
			return vm, &banger.Error{Op: "set vm", Subject: vm.Spec.Name, Err: err}
		}
		if vm, err = m.become(ctx, vm, plan.spec, plan.pending, change.TTL); err != nil {
			return vm, &banger.Error{Op: "set vm", Subject: vm.Spec.Name, Err: err}
		}
		m.lookAgain()
		m.Log.InfoContext(ctx, "set", "vm", vm.ID, "name", vm.Spec.Name, "changes", len(plan.changes))
		return vm, nil
	})
	return api.SetResult{VM: vm, Changes: plan.changes}, err
}

// plan is what a change comes to.
type plan struct {
	changes []api.Change
	spec    banger.VMSpec      // now
	pending *banger.SpecChange // at the next start
}

// planOf says what a change does to a VM and when. What it gives for a change that is impossible must not be done.
func (m *Manager) planOf(vm banger.VM, change banger.SpecChange) (plan, error) {
	var pending banger.SpecChange
	if vm.Pending != nil {
		pending = *vm.Pending
	}
	ttl := change.TTL
	change.TTL = nil
	var now, later banger.SpecChange
	if isActive(vm.State) {
		now = banger.SpecChange{StopIdle: change.StopIdle, Labels: change.Labels}
		later = change
		later.StopIdle, later.Labels = nil, nil
	} else { // what waits for the next start is for now as well
		now, pending = pending.And(change, vm.Spec), banger.SpecChange{}
	}
	p := plan{spec: now.Apply(vm.Spec), changes: []api.Change{}}
	if all := pending.And(later, p.spec); !all.IsZero() {
		p.pending = &all
	}
	whole := p.spec
	if p.pending != nil {
		whole = p.pending.Apply(whole)
	}
	if err := whole.Validate(); err != nil {
		return p, err
	}
	p.list(vm, now, api.WhenNow)
	p.list(vm, later, api.WhenNextStart)
	if ttl != nil {
		after := vm
		m.setAge(&after, *ttl)
		p.changes = append(p.changes, api.Change{FieldChange: banger.FieldChange{Field: "deleted", From: moment(vm.ExpiresAt), To: moment(after.ExpiresAt)}, When: api.WhenNow})
	}
	return p, nil
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// list adds what is different afterwards.
func (p *plan) list(vm banger.VM, change banger.SpecChange, when string) {
	change = banger.SpecChange{}.And(change, vm.Spec)
	for _, field := range change.Fields(vm.Spec) {
		c := api.Change{FieldChange: field, When: when}
		if field.Field == "disk" && *change.DiskBytes < vm.Spec.DiskBytes {
			c.When, c.Reason = api.WhenImpossible, fmt.Sprintf("the disk has %s and only grows: it can't shrink to %s", field.From, field.To)
		}
		p.changes = append(p.changes, c)
	}
}

// possible gives the reasons against a plan.
func (p *plan) possible() error {
	var reasons []error
	for _, c := range p.changes {
		if c.When == api.WhenImpossible {
			reasons = append(reasons, errors.New(c.Reason))
		}
	}
	if reasons == nil {
		return nil
	}
	return &banger.Error{Kind: banger.ErrConflict, Err: errors.Join(reasons...), Hint: "for a smaller disk make another VM and copy what you need"}
}

// become records what a VM is from now on and makes its disk so if it does not run. The record goes first: a growth that is cut off is
// completed at the next start. On error both are as they were.
func (m *Manager) become(ctx context.Context, vm banger.VM, spec banger.VMSpec, pending *banger.SpecChange, ttl *time.Duration) (banger.VM, error) {
	row, err := m.Store.Update(ctx, vm.ID, func(row *banger.VM) error {
		row.Spec, row.Pending = spec, pending
		if ttl != nil {
			m.setAge(row, *ttl)
		}
		return nil
	})
	if err != nil || isActive(vm.State) {
		return row, err
	}
	if err := m.Homes.Grow(vm.ID, spec.DiskBytes); err != nil {
		old, undoErr := m.update(ctx, vm.ID, func(row *banger.VM) {
			row.Spec, row.Pending, row.ExpiresAt, row.ExpiresHost = vm.Spec, vm.Pending, vm.ExpiresAt, vm.ExpiresHost
		})
		return old, errors.Join(err, undoErr)
	}
	return row, nil
}

// takeChanges makes a VM that is to start what it was set to while it ran.
func (m *Manager) takeChanges(ctx context.Context, vm banger.VM) (banger.VM, error) {
	if vm.Pending == nil {
		return vm, m.Homes.Grow(vm.ID, vm.Spec.DiskBytes)
	}
	return m.become(ctx, vm, vm.Pending.Apply(vm.Spec), nil, nil)
}
