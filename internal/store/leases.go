package store

import (
	"context"
	"database/sql"

	"banger"
	"banger/internal/proc"
)

// Lease keeps a VM while a process lives; then the daemon deletes the VM.
type Lease struct {
	VM     banger.VMID
	Holder proc.Handle
}

func putLease(ctx context.Context, tx *sql.Tx, lease Lease) error {
	// SQLite has no unsigned integers; a start time is ticks since boot and fits.
	_, err := tx.ExecContext(ctx, "INSERT INTO leases (vm_id, pid, start_time, boot_id) VALUES (?, ?, ?, ?)",
		lease.VM, lease.Holder.PID, int64(lease.Holder.StartTime), lease.Holder.BootID)
	return err
}

// DeleteLease lets a VM stay when its holder goes. A VM without a lease is no error.
func (s *Store) DeleteLease(ctx context.Context, id banger.VMID) error {
	return s.within(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM leases WHERE vm_id = ?", id)
		return err
	})
}

// Leases gives every lease.
func (s *Store) Leases(ctx context.Context) ([]Lease, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT vm_id, pid, start_time, boot_id FROM leases ORDER BY vm_id")
	if err != nil {
		return nil, kinded(err)
	}
	defer rows.Close()
	var leases []Lease
	for rows.Next() {
		var lease Lease
		var started int64
		if err := rows.Scan(&lease.VM, &lease.Holder.PID, &started, &lease.Holder.BootID); err != nil {
			return nil, kinded(err)
		}
		lease.Holder.StartTime = uint64(started)
		leases = append(leases, lease)
	}
	return leases, kinded(rows.Err())
}
