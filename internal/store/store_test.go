package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/proc"
)

func openTest(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newVM(id, name string) banger.VM {
	return banger.VM{ID: banger.VMID(id), State: banger.StateCreating, CreatedAt: time.Unix(1, 0).UTC(),
		Spec: banger.VMSpec{Name: name, Image: "debian", VCPU: 1, MemoryMiB: 512, DiskBytes: 1 << 30, Env: map[string]string{"A": "b'\"\x01é"}}}
}

func reserve(t *testing.T, s *Store, id, name string) banger.VM {
	t.Helper()
	vm := newVM(id, name)
	if err := s.Reserve(t.Context(), vm, nil); err != nil {
		t.Fatalf("Reserve(%s): %v", name, err)
	}
	return vm
}

func TestRecordsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%20?#'", "state.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	want := newVM("0123456789ab", "devbox")
	holder := proc.Handle{PID: 7, StartTime: 1 << 40, BootID: "boot"}
	if err := s.Reserve(t.Context(), want, &holder); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Get(t.Context(), "devbox")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Get after opening again: %v, %s", err, diff)
	}
	leases, err := s.Leases(t.Context())
	if diff := cmp.Diff([]Lease{{VM: want.ID, Holder: holder}}, leases); err != nil || diff != "" {
		t.Errorf("Leases after opening again: %v, %s", err, diff)
	}
	if err := s.Delete(t.Context(), want.ID); err != nil {
		t.Fatal(err)
	}
	if leases, err := s.Leases(t.Context()); err != nil || len(leases) != 0 {
		t.Errorf("Leases after Delete = %v, %v, want none: foreign keys are on", leases, err)
	}
	for _, pragma := range []struct{ name, want string }{{"journal_mode", "wal"}, {"synchronous", "2"}, {"foreign_keys", "1"}, {"busy_timeout", "5000"}} {
		var value string
		if err := s.db.QueryRow("PRAGMA " + pragma.name).Scan(&value); err != nil || value != pragma.want {
			t.Errorf("PRAGMA %s = %s, %v, want %s", pragma.name, value, err, pragma.want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("database has mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestNameTaken(t *testing.T) {
	s := openTest(t)
	reserve(t, s, "000000000001", "devbox")
	err := s.Reserve(t.Context(), newVM("000000000002", "devbox"), nil)
	if !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "name taken") {
		t.Errorf("Reserve of a taken name = %v, want a conflict", err)
	}
	reserve(t, s, "000000000003", "other")
	_, err = s.Update(t.Context(), "000000000003", func(vm *banger.VM) error { vm.Spec.Name = "devbox"; return nil })
	if !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Update to a taken name = %v, want a conflict", err)
	}
	if vms, err := s.List(t.Context()); err != nil || len(vms) != 2 || vms[1].Spec.Name != "other" {
		t.Errorf("List = %v, %v, want the two VMs unchanged", vms, err)
	}
}

func TestOneNameOnceAmongMany(t *testing.T) {
	s := openTest(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	won := 0
	for i := range 16 {
		wg.Go(func() {
			err := s.Reserve(context.Background(), newVM(fmt.Sprintf("%012x", i), "devbox"), nil)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, banger.ErrConflict) {
				t.Errorf("Reserve = %v, want a conflict", err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of 16 got the name, want 1", won)
	}
}

func TestGet(t *testing.T) {
	s := openTest(t)
	reserve(t, s, "abc000000001", "devbox")
	reserve(t, s, "abd000000002", "abc0") // a name that is a prefix of another id
	reserve(t, s, "0f0000000003", "web")
	for _, tc := range []struct {
		ref, want string
		kind      error
		text      string // in message or hint
	}{
		{"devbox", "abc000000001", nil, ""},
		{"abc000000001", "abc000000001", nil, ""},
		{"abc00", "abc000000001", nil, ""},
		{"abc0", "abd000000002", nil, ""},
		{"abc", "abc000000001", nil, ""},
		{"ab", "", banger.ErrInvalid, "abd000000002 (abc0)"},
		{"0", "0f0000000003", nil, ""},
		{"", "", banger.ErrNotFound, ""},
		{"dexbox", "", banger.ErrNotFound, "did you mean devbox?"},
		{"%", "", banger.ErrNotFound, ""},
		{"zzzzzz", "", banger.ErrNotFound, "there is: "},
		{"x'; DROP TABLE vms; --", "", banger.ErrNotFound, ""},
	} {
		vm, err := s.Get(t.Context(), tc.ref)
		all, resolveErr := s.Resolve(t.Context(), []string{tc.ref, "devbox"})
		if resolveErr != nil || len(all) != 2 || all[1].Name != "devbox" || all[0].ID != vm.ID || fmt.Sprint(all[0].Err) != fmt.Sprint(err) || banger.HintOf(all[0].Err) != banger.HintOf(err) {
			t.Errorf("Resolve(%q) = %+v, %v, want what Get gives: %s, %v", tc.ref, all, resolveErr, vm.ID, err)
		}
		if string(vm.ID) != tc.want || (tc.kind == nil) != (err == nil) || tc.kind != nil && !errors.Is(err, tc.kind) {
			t.Errorf("Get(%q) = %s, %v, want %s, %v", tc.ref, vm.ID, err, tc.want, tc.kind)
		}
		if err != nil && !strings.Contains(err.Error()+" "+banger.HintOf(err), tc.text) {
			t.Errorf("Get(%q) = %v (hint %q), want %q in it", tc.ref, err, banger.HintOf(err), tc.text)
		}
	}
}

func TestChanged(t *testing.T) {
	s := openTest(t)
	told := func(change <-chan struct{}) bool {
		select {
		case <-change:
			return true
		default:
			return false
		}
	}
	for _, tc := range []struct {
		what   string
		change func() error
		want   bool
	}{
		{"reserve", func() error { return s.Reserve(t.Context(), newVM("000000000001", "x"), nil) }, true},
		{"a taken name", func() error {
			if s.Reserve(t.Context(), newVM("000000000002", "x"), nil) == nil {
				return errors.New("no conflict")
			}
			return nil
		}, false},
		{"update", func() error {
			_, err := s.Update(t.Context(), "000000000001", func(vm *banger.VM) error { vm.State = banger.StateError; return nil })
			return err
		}, true},
		{"list", func() error { _, err := s.List(t.Context()); return err }, false},
		{"delete", func() error { return s.Delete(t.Context(), "000000000001") }, true},
	} {
		first, second := s.Changed(), s.Changed()
		if err := tc.change(); err != nil || told(first) != tc.want || told(second) != tc.want {
			t.Errorf("%s: %v, told %v and %v, want %v", tc.what, err, told(first), told(second), tc.want)
		}
	}
}

func TestTransitions(t *testing.T) {
	states := []banger.VMState{banger.StateCreating, banger.StateStopped, banger.StateStarting, banger.StateRunning, banger.StateStopping, banger.StateError}
	allowed := map[string]bool{
		"creating stopped": true, "creating starting": true, "creating error": true, "stopped starting": true, "stopped error": true,
		"starting running": true, "starting stopping": true, "starting stopped": true, "starting error": true, "running stopping": true,
		"running stopped": true, "running starting": true, "running error": true, "stopping stopped": true, "stopping error": true, "error starting": true, "error stopped": true,
	}
	for _, from := range states {
		for _, to := range states {
			s := openTest(t)
			vm := newVM("000000000001", "x")
			vm.State = from
			if err := s.Reserve(t.Context(), vm, nil); err != nil {
				t.Fatal(err)
			}
			want := from == to || allowed[string(from)+" "+string(to)]
			_, err := s.Update(t.Context(), vm.ID, func(vm *banger.VM) error { vm.State = to; return nil })
			if (err == nil) != want || err != nil && !errors.Is(err, banger.ErrConflict) {
				t.Errorf("%s to %s: %v, want allowed %v", from, to, err, want)
			}
			if got, err := s.Get(t.Context(), "x"); err != nil || want && got.State != to || !want && got.State != from {
				t.Errorf("%s to %s: stored %s, %v", from, to, got.State, err)
			}
		}
	}
}

func TestUpdateFails(t *testing.T) {
	s := openTest(t)
	vm := reserve(t, s, "000000000001", "x")
	if _, err := s.Update(t.Context(), "000000000009", func(*banger.VM) error { return nil }); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Update of a missing VM = %v, want not found", err)
	}
	cause := errors.New("no")
	_, err := s.Update(t.Context(), vm.ID, func(vm *banger.VM) error { vm.LastError = "x"; return cause })
	if got, _ := s.Get(t.Context(), "x"); !errors.Is(err, cause) || got.LastError != "" {
		t.Errorf("Update = %v and stored %q, want %v and nothing stored", err, got.LastError, cause)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Update(ctx, vm.ID, func(*banger.VM) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Update with an ended context = %v, want canceled", err)
	}
}

func TestDeleteLease(t *testing.T) {
	s := openTest(t)
	holder := proc.Handle{PID: 3, StartTime: 9, BootID: "b"}
	x, y := newVM("000000000001", "x"), newVM("000000000002", "y")
	if err := errors.Join(s.Reserve(t.Context(), x, &holder), s.Reserve(t.Context(), y, &holder)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a missing one is no error
		if err := s.DeleteLease(t.Context(), x.ID); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Leases(t.Context())
	if diff := cmp.Diff([]Lease{{VM: y.ID, Holder: holder}}, got); err != nil || diff != "" {
		t.Errorf("Leases: %v, %s", err, diff)
	}
	if _, err := s.Get(t.Context(), "x"); err != nil {
		t.Errorf("the VM without its lease: %v", err)
	}
}

// A lease that was to end by the wall clock ends nothing any more; others are kept.
func TestLeasesOfTheFirstSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	old := &Store{db: db}
	if err := old.migrate(t.Context(), migrations[:1]); err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`INSERT INTO vms VALUES ('000000000001', 'x', 'error', 1, '{}'), ('000000000002', 'y', 'running', 2, '{}');
INSERT INTO leases VALUES ('000000000001', 0, 0, '', 5), ('000000000002', 3, 9, 'b', NULL)`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Leases(t.Context())
	if diff := cmp.Diff([]Lease{{VM: "000000000002", Holder: proc.Handle{PID: 3, StartTime: 9, BootID: "b"}}}, got); err != nil || diff != "" {
		t.Errorf("Leases: %v, %s", err, diff)
	}
}

func TestCorruptRecordIsOneVMInError(t *testing.T) {
	s := openTest(t)
	reserve(t, s, "000000000001", "good")
	reserve(t, s, "000000000002", "bad")
	if _, err := s.db.Exec("UPDATE vms SET record = '{' WHERE name = 'bad'"); err != nil {
		t.Fatal(err)
	}
	vms, err := s.List(t.Context())
	if err != nil || len(vms) != 2 || vms[0].LastError != "" || vms[1].State != banger.StateError || !strings.Contains(vms[1].LastError, "can't be read") {
		t.Errorf("List = %+v, %v, want the bad one in error", vms, err)
	}
}

func TestMigrations(t *testing.T) {
	for i := 1; i < len(migrations); i++ {
		if migrations[i].id <= migrations[i-1].id {
			t.Errorf("migration %d follows %d: ids rise", migrations[i].id, migrations[i-1].id)
		}
	}
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "state.db")
	check := func(want Compatibility, kind error) {
		t.Helper()
		got, err := Check(ctx, path)
		if got != want || (kind == nil) != (err == nil) || kind != nil && !errors.Is(err, kind) {
			t.Fatalf("Check = %d, %v, want %d, %v", got, err, want, kind)
		}
	}
	check(NeedsMigrate, nil)
	s, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	check(Compatible, nil)
	reserve(t, s, "000000000001", "x")

	last := migrations[len(migrations)-1].id
	broken := append(migrations[:len(migrations):len(migrations)], migration{last + 1, "broken", "CREATE TABLE half (a INTEGER); CREATE TABLE vms (a INTEGER)"})
	if err := s.migrate(ctx, broken); err == nil {
		t.Fatal("a broken migration succeeded")
	}
	var tables int
	if err := s.db.QueryRow("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("a broken migration left %d tables behind, %v", tables, err)
	}
	check(Compatible, nil)
	next := append(migrations[:len(migrations):len(migrations)], migration{last + 1, "next", "ALTER TABLE vms ADD COLUMN extra INTEGER"})
	if err := s.migrate(ctx, next); err != nil {
		t.Fatal(err)
	}
	if vms, err := s.List(ctx); err != nil || len(vms) != 1 {
		t.Errorf("List after a migration = %v, %v, want the one VM", vms, err)
	}
	s.Close()
	check(Incompatible, banger.ErrUnsupported)
	if _, err := Open(ctx, path); !errors.Is(err, banger.ErrUnsupported) {
		t.Errorf("Open of a newer database = %v, want unsupported", err)
	}
}

func TestNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Open = %v, want corrupt", err)
	}
	if got, err := Check(t.Context(), path); got != Incompatible || !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Check = %d, %v, want incompatible, corrupt", got, err)
	}
	if _, err := Open(t.Context(), filepath.Join(path, "below")); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Open below a file = %v, want unavailable", err)
	}
}

func BenchmarkListThousand(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	err = s.within(b.Context(), func(ctx context.Context, tx *sql.Tx) error {
		for i := range 1000 {
			vm := newVM(fmt.Sprintf("%012x", i), fmt.Sprintf("vm-%d", i))
			if _, err := tx.Exec("INSERT INTO vms VALUES (?, ?, ?, ?, ?)", vm.ID, vm.Spec.Name, vm.State, i,
				fmt.Sprintf(`{"id":%q,"spec":{"name":%q},"state":"stopped"}`, vm.ID, vm.Spec.Name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if vms, err := s.List(b.Context()); err != nil || len(vms) != 1000 {
			b.Fatal(len(vms), err)
		}
	}
}

// A list is as the records are, also when the one before it is remembered.
func TestListAfterChanges(t *testing.T) {
	s := openTest(t)
	for i := range 3 {
		vm := banger.VM{ID: banger.VMID(fmt.Sprintf("%012x", i)), Spec: banger.VMSpec{Name: fmt.Sprint("vm", i)}, State: banger.StateCreating, CreatedAt: time.Unix(int64(i), 0)}
		if err := s.Reserve(t.Context(), vm, nil); err != nil {
			t.Fatal(err)
		}
	}
	names := func() (all string) {
		t.Helper()
		list, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, vm := range list {
			all += vm.Spec.Name + ":" + string(vm.State) + " "
		}
		return all
	}
	if got := names() + names(); got != "vm0:creating vm1:creating vm2:creating vm0:creating vm1:creating vm2:creating " {
		t.Errorf("List() twice = %s", got)
	}
	if _, err := s.Update(t.Context(), "000000000001", func(vm *banger.VM) error {
		vm.Spec.Name, vm.State = "renamed", banger.StateStopped
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "000000000000"); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != "renamed:stopped vm2:creating " {
		t.Errorf("List() after changes = %s", got)
	}
}
