package store

import (
	"context"
	"database/sql"
	"time"

	"banger"
	"banger/internal/proc"
)

// Lease keeps a VM alive while a process lives or until a time comes; then the daemon deletes the VM.
type Lease struct {
	VM      banger.VMID
	Holder  proc.Handle
	Expires time.Time // set: the holder does not matter any more
}

// PutLease inserts or replaces a VM's lease.
func (s *Store) PutLease(ctx context.Context, lease Lease) error {
	return s.within(ctx, func(ctx context.Context, tx *sql.Tx) error { return putLease(ctx, tx, lease) })
}

func putLease(ctx context.Context, tx *sql.Tx, lease Lease) error {
	var expires sql.NullInt64
	if !lease.Expires.IsZero() {
		expires = sql.NullInt64{Int64: lease.Expires.UnixNano(), Valid: true}
	}
	// SQLite has no unsigned integers; a start time is ticks since boot and fits.
	_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO leases (vm_id, pid, start_time, boot_id, expires_at) VALUES (?, ?, ?, ?, ?)",
		lease.VM, lease.Holder.PID, int64(lease.Holder.StartTime), lease.Holder.BootID, expires)
	return err
}

// Leases gives every lease.
func (s *Store) Leases(ctx context.Context) ([]Lease, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT vm_id, pid, start_time, boot_id, expires_at FROM leases ORDER BY vm_id")
	if err != nil {
		return nil, kinded(err)
	}
	defer rows.Close()
	var leases []Lease
	for rows.Next() {
		var lease Lease
		var started int64
		var expires sql.NullInt64
		if err := rows.Scan(&lease.VM, &lease.Holder.PID, &started, &lease.Holder.BootID, &expires); err != nil {
			return nil, kinded(err)
		}
		lease.Holder.StartTime = uint64(started)
		if expires.Valid {
			lease.Expires = time.Unix(0, expires.Int64)
		}
		leases = append(leases, lease)
	}
	return leases, kinded(rows.Err())
}
