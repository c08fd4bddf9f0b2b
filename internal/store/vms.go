package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"banger"
	"banger/internal/proc"
)

// moves are the changes of state that exist. Staying in a state is always allowed.
var moves = map[banger.VMState][]banger.VMState{
	banger.StateCreating: {banger.StateStopped, banger.StateStarting, banger.StateError},
	banger.StateStopped:  {banger.StateStarting, banger.StateError},
	banger.StateStarting: {banger.StateRunning, banger.StateStopping, banger.StateStopped, banger.StateError},
	banger.StateRunning:  {banger.StateStopping, banger.StateStopped, banger.StateStarting, banger.StateError}, // starting: the guest reboots
	banger.StateStopping: {banger.StateStopped, banger.StateError},
	banger.StateError:    {banger.StateStarting, banger.StateStopped},
}

// Reserve inserts the record of a new VM and, when holder is set, its lease. Errors: ErrConflict when the name is taken.
func (s *Store) Reserve(ctx context.Context, vm banger.VM, holder *proc.Handle) error {
	record, err := json.Marshal(vm)
	if err != nil {
		return fmt.Errorf("encode vm: %w", err)
	}
	err = s.within(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO vms (id, name, state, created_at, record) VALUES (?, ?, ?, ?, ?)",
			vm.ID, vm.Spec.Name, vm.State, vm.CreatedAt.UnixNano(), string(record))
		if err != nil || holder == nil {
			return err
		}
		return putLease(ctx, tx, Lease{VM: vm.ID, Holder: *holder})
	})
	s.changes.tell(err)
	if isUniqueViolation(err) {
		return &banger.Error{Kind: banger.ErrConflict, Err: errors.New("name taken"),
			Hint: "choose another --name, or: banger vm delete " + vm.Spec.Name}
	}
	return err
}

// Update changes one record in a transaction: change sees the stored one. Its error ends the update and is returned.
// Errors: ErrNotFound; ErrConflict for a change of state that does not exist.
func (s *Store) Update(ctx context.Context, id banger.VMID, change func(*banger.VM) error) (vm banger.VM, err error) {
	err = s.within(ctx, func(ctx context.Context, tx *sql.Tx) error {
		row := tx.QueryRowContext(ctx, "SELECT id, name, record FROM vms WHERE id = ?", id)
		if vm, err = scanVM(row); errors.Is(err, sql.ErrNoRows) {
			return notFound(string(id), nil)
		} else if err != nil {
			return err
		}
		from := vm.State
		if err := change(&vm); err != nil {
			return err
		}
		if vm.ID != id {
			return banger.Invalidf("vm %s: its id can't change", id)
		}
		if from != vm.State && !slices.Contains(moves[from], vm.State) {
			return &banger.Error{Kind: banger.ErrConflict, Op: "vm", Subject: vm.Spec.Name, Err: fmt.Errorf("it is %s and can't become %s", from, vm.State)}
		}
		record, err := json.Marshal(vm)
		if err != nil {
			return fmt.Errorf("encode vm: %w", err)
		}
		_, err = tx.ExecContext(ctx, "UPDATE vms SET name = ?, state = ?, record = ? WHERE id = ?", vm.Spec.Name, vm.State, string(record), id)
		return err
	})
	s.changes.tell(err)
	if isUniqueViolation(err) {
		return vm, &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("the name %s is taken", vm.Spec.Name), Hint: "choose another one"}
	}
	return vm, err
}

// Delete removes a record with its lease, and keeps the id among the erased ones. A missing record is no error.
func (s *Store) Delete(ctx context.Context, id banger.VMID) error {
	err := s.within(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM vms WHERE id = ?", id)
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT OR IGNORE INTO erased (id) VALUES (?)", id)
		}
		return err
	})
	s.changes.tell(err)
	return err
}

// Erased gives the VMs that Delete has removed and Forget was not told of. Only their directories may go: one that the database has never
// heard of can be a VM's all the same, when somebody has put an older copy of the database back.
func (s *Store) Erased(ctx context.Context) (map[banger.VMID]bool, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id FROM erased")
	if err != nil {
		return nil, kinded(err)
	}
	defer rows.Close()
	ids := map[banger.VMID]bool{}
	for rows.Next() {
		var id banger.VMID
		if err := rows.Scan(&id); err != nil {
			return nil, kinded(err)
		}
		ids[id] = true
	}
	return ids, kinded(rows.Err())
}

// Forget ends that VMs are among the erased ones: nothing of them is left.
func (s *Store) Forget(ctx context.Context, ids []banger.VMID) error {
	return s.within(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, "DELETE FROM erased WHERE id = ?", id); err != nil {
				return err
			}
		}
		return nil
	})
}

// List gives every VM, oldest first. A record that can't be read is a VM in state error that says so.
func (s *Store) List(ctx context.Context) ([]banger.VM, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id, name, record FROM vms ORDER BY created_at, id")
	if err != nil {
		return nil, kinded(err)
	}
	defer rows.Close()
	vms, seen := []banger.VM{}, map[string]seenRow{}
	s.mu.Lock()
	before := s.seen
	s.mu.Unlock()
	for rows.Next() {
		var id string
		var row seenRow
		if err := rows.Scan(&id, &row.name, &row.record); err != nil {
			return nil, kinded(err)
		}
		if old, ok := before[id]; ok && old.name == row.name && old.record == row.record {
			row = old
		} else {
			row.vm = decodeVM(id, row.name, row.record)
		}
		seen[id] = row
		vms = append(vms, row.vm)
	}
	if err := rows.Err(); err != nil {
		return nil, kinded(err)
	}
	s.mu.Lock()
	s.seen = seen
	s.mu.Unlock()
	return vms, nil
}

// seenRow is a row that List has decoded: most rows are the same the next time. Nobody changes what a VM of it points to.
type seenRow struct {
	name, record string
	vm           banger.VM
}

// Get finds one VM by its name, its id, or a prefix of its id that no other VM has.
// Errors: ErrNotFound with near names as the hint; ErrInvalid for a prefix of several ids.
func (s *Store) Get(ctx context.Context, ref string) (banger.VM, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, name, record FROM vms
		WHERE name = ?1 OR substr(id, 1, length(?1)) = ?1 AND ?1 <> '' ORDER BY name = ?1 DESC, id LIMIT 4`, ref)
	if err != nil {
		return banger.VM{}, kinded(err)
	}
	defer rows.Close()
	var found []banger.VM
	for rows.Next() {
		vm, err := scanVM(rows)
		if err != nil {
			return banger.VM{}, kinded(err)
		}
		found = append(found, vm)
	}
	switch {
	case rows.Err() != nil:
		return banger.VM{}, kinded(rows.Err())
	case len(found) == 0:
		rows.Close() // the only connection
		names, err := s.names(ctx)
		return banger.VM{}, errors.Join(notFound(ref, names), err)
	case len(found) > 1 && found[0].Spec.Name != ref:
		return banger.VM{}, ambiguous(ref, found)
	}
	return found[0], nil
}

func (s *Store) names(ctx context.Context) (names []string, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT name FROM vms ORDER BY created_at DESC, id")
	if err != nil {
		return nil, kinded(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, kinded(err)
		}
		names = append(names, name)
	}
	return names, kinded(rows.Err())
}

func notFound(ref string, names []string) error {
	hint := banger.DidYouMean(ref, names)
	if hint == "" {
		hint = "banger vm list"
	}
	return &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: fmt.Sprintf("%q", ref), Hint: hint}
}

func ambiguous(ref string, found []banger.VM) error {
	var ids []string
	for _, vm := range found[:min(len(found), 3)] {
		ids = append(ids, fmt.Sprintf("%s (%s)", vm.ID, vm.Spec.Name))
	}
	return &banger.Error{Kind: banger.ErrInvalid, Op: "vm", Subject: fmt.Sprintf("%q", ref),
		Err: errors.New("several ids begin so: " + strings.Join(ids, ", ")), Hint: "give more digits, or the name"}
}

// scanVM reads one row of id, name, record.
func scanVM(row interface{ Scan(...any) error }) (banger.VM, error) {
	var id, name, record string
	if err := row.Scan(&id, &name, &record); err != nil {
		return banger.VM{}, err
	}
	return decodeVM(id, name, record), nil
}

// decodeVM gives a VM in state error for a record that can't be read.
func decodeVM(id, name, record string) banger.VM {
	var vm banger.VM
	if err := json.Unmarshal([]byte(record), &vm); err != nil || string(vm.ID) != id {
		return banger.VM{ID: banger.VMID(id), Spec: banger.VMSpec{Name: name}, State: banger.StateError,
			LastError: fmt.Sprintf("its record in the database can't be read: %v", err)}
	}
	return vm
}
