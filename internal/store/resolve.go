package store

import (
	"context"
	"strings"

	"banger"
)

// Resolved is what a reference stands for: a VM, or why it is none.
type Resolved struct {
	ID   banger.VMID
	Name string
	Err  error // as [Store.Get] gives it
}

// Resolve finds out what each of refs stands for, all at one moment.
func (s *Store) Resolve(ctx context.Context, refs []string) ([]Resolved, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id, name FROM vms ORDER BY created_at DESC, id")
	if err != nil {
		return nil, kinded(err)
	}
	defer rows.Close()
	var all []Resolved
	for rows.Next() {
		var one Resolved
		if err := rows.Scan(&one.ID, &one.Name); err != nil {
			return nil, kinded(err)
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		return nil, kinded(err)
	}
	found := make([]Resolved, len(refs))
	for i, ref := range refs {
		found[i] = pick(all, ref)
	}
	return found, nil
}

// pick finds the one VM that ref stands for by the rules of [Store.Get].
func pick(all []Resolved, ref string) Resolved {
	var begin []banger.VM
	var names []string
	for _, one := range all {
		if one.Name == ref {
			return one
		}
		if ref != "" && strings.HasPrefix(string(one.ID), ref) {
			begin = append(begin, banger.VM{ID: one.ID, Spec: banger.VMSpec{Name: one.Name}})
		}
		names = append(names, one.Name)
	}
	switch len(begin) {
	case 0:
		return Resolved{Err: notFound(ref, names)}
	case 1:
		return Resolved{ID: begin[0].ID, Name: begin[0].Spec.Name}
	}
	return Resolved{Err: ambiguous(ref, begin)}
}
