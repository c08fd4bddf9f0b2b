package store

import (
	"context"
	"database/sql"
	"fmt"

	"banger"
)

// migration is one step of the schema. A released one is never changed; ids rise.
type migration struct {
	id   int
	name string
	sql  string
}

var migrations = []migration{
	{1, "vms and leases", `
CREATE TABLE vms (
	id         TEXT PRIMARY KEY,
	name       TEXT NOT NULL UNIQUE,
	state      TEXT NOT NULL,
	created_at INTEGER NOT NULL, -- nanoseconds since 1970
	record     TEXT NOT NULL     -- banger.VM as JSON
) STRICT;
CREATE TABLE leases (
	vm_id      TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
	pid        INTEGER NOT NULL,
	start_time INTEGER NOT NULL, -- clock ticks since boot
	boot_id    TEXT NOT NULL,
	expires_at INTEGER           -- nanoseconds since 1970; NULL: when the holder is gone
) STRICT;`},
	{2, "leases end with their holder", `
DELETE FROM leases WHERE expires_at IS NOT NULL; -- of VMs that did not boot: they stay
ALTER TABLE leases DROP COLUMN expires_at;`},
	{3, "directories that are to go", `
CREATE TABLE erased (id TEXT PRIMARY KEY) STRICT; -- of VMs without a record, whose directory may still be there`},
}

const migrationTable = `CREATE TABLE IF NOT EXISTS schema_migrations (
	id INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT`

// migrate applies what is missing, each step with its record in one transaction.
func (s *Store) migrate(ctx context.Context, known []migration) error {
	if err := s.within(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, migrationTable)
		return err
	}); err != nil {
		return err
	}
	missing, err := pending(ctx, s.db, known)
	if err != nil {
		return kinded(err)
	}
	for _, m := range missing {
		err := s.within(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, m.sql); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO schema_migrations (id, name, applied_at) VALUES (?, ?, ?)", m.id, m.name, now())
			return err
		})
		if err != nil {
			return fmt.Errorf("migration %d (%s): %w", m.id, m.name, err)
		}
	}
	return nil
}

// pending gives the migrations that db lacks. Errors: ErrUnsupported when db has one that is not known.
func pending(ctx context.Context, db *sql.DB, known []migration) ([]migration, error) {
	applied, err := appliedIDs(ctx, db)
	if err != nil {
		return nil, err
	}
	var missing []migration
	for _, m := range known {
		if !applied[m.id] {
			missing = append(missing, m)
		}
		delete(applied, m.id)
	}
	for id := range applied {
		return nil, &banger.Error{Kind: banger.ErrUnsupported, Op: "database schema", Err: fmt.Errorf("a newer banger made it (migration %d)", id),
			Hint: "use that version of banger, or another state directory"}
	}
	return missing, nil
}

func appliedIDs(ctx context.Context, db *sql.DB) (map[int]bool, error) {
	ids := map[int]bool{}
	var tables int
	err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations'").Scan(&tables)
	if err != nil || tables == 0 {
		return ids, err
	}
	rows, err := db.QueryContext(ctx, "SELECT id FROM schema_migrations")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids[id] = true
	}
	return ids, rows.Err()
}
