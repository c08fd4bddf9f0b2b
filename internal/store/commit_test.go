package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"banger"
)

// insert is a transaction that stores a VM and then ends with err.
func insert(ctx context.Context, n int, err error) transaction {
	return transaction{ctx, func(ctx context.Context, tx *sql.Tx) error {
		vm := newVM(fmt.Sprintf("%012x", n), fmt.Sprintf("vm-%d", n))
		_, execErr := tx.ExecContext(ctx, "INSERT INTO vms (id, name, state, created_at, record) VALUES (?, ?, ?, ?, ?)", vm.ID, vm.Spec.Name, vm.State, n,
			fmt.Sprintf(`{"id":%q,"spec":{"name":%q}}`, vm.ID, vm.Spec.Name))
		return errors.Join(execErr, err)
	}, make(chan error, 1)}
}

func stored(t *testing.T, s *Store) (names []string) {
	t.Helper()
	vms, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, vm := range vms {
		names = append(names, vm.Spec.Name)
	}
	return names
}

// Of transactions that are committed together each one fails alone.
func TestCommitTogether(t *testing.T) {
	s := openTest(t)
	planned := errors.New("planned")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	ended := s.commit([]transaction{insert(t.Context(), 1, nil), insert(t.Context(), 2, planned), insert(gone, 3, nil), insert(t.Context(), 1, nil), insert(t.Context(), 4, nil)})
	if ended[0] != nil || !errors.Is(ended[1], planned) || !errors.Is(ended[2], context.Canceled) || ended[3] == nil || ended[4] != nil {
		t.Errorf("ended as %v", ended)
	}
	if got, want := stored(t, s), []string{"vm-1", "vm-4"}; !slices.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
}

// When the database undoes all of them, all are told so and the next ones work.
func TestCommitUndoneTogether(t *testing.T) {
	s := openTest(t)
	undoes := transaction{t.Context(), func(ctx context.Context, tx *sql.Tx) error { // as a full disk does
		_, err := tx.ExecContext(ctx, "ROLLBACK")
		return err
	}, make(chan error, 1)}
	for i, err := range s.commit([]transaction{insert(t.Context(), 1, nil), undoes, insert(t.Context(), 2, nil)}) {
		if err == nil {
			t.Errorf("transaction %d says that it was stored", i)
		}
	}
	if got := stored(t, s); len(got) > 0 {
		t.Errorf("stored %v, want nothing", got)
	}
	if err := s.Reserve(t.Context(), newVM("000000000009", "next"), nil); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestManyTransactionsAtOnce(t *testing.T) {
	s := openTest(t)
	const count = 40
	var group sync.WaitGroup
	for i := range count {
		group.Go(func() {
			id := banger.VMID(fmt.Sprintf("%012x", i))
			if err := s.Reserve(context.Background(), newVM(string(id), fmt.Sprint("vm-", i)), nil); err != nil {
				t.Errorf("Reserve: %v", err)
			}
			for n := range 5 {
				vm, err := s.Update(context.Background(), id, func(vm *banger.VM) error {
					if vm.Boots != n {
						return fmt.Errorf("%d boots, want %d", vm.Boots, n)
					}
					vm.Boots++
					return nil
				})
				if err != nil || vm.Boots != n+1 {
					t.Errorf("Update = %+v, %v", vm, err)
				}
			}
		})
	}
	group.Wait()
	vms, err := s.List(t.Context())
	if err != nil || len(vms) != count {
		t.Fatalf("List = %d VMs, %v", len(vms), err)
	}
	for _, vm := range vms {
		if vm.Boots != 5 {
			t.Errorf("%s: %d updates are there, want 5", vm.Spec.Name, vm.Boots)
		}
	}
}
