// Package store keeps the durable records of VMs and leases in one SQLite file.
//
// Every method is one transaction that is on the disk when it returns; those that come while the disk is waited for go there together.
// There is one connection: a transaction takes milliseconds, and a second page cache would cost memory that an idle daemon has no use for.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"banger"
)

// Store is an open database. It is safe for concurrent use.
type Store struct {
	db      *sql.DB
	changes changes
	queue   queue

	mu   sync.Mutex
	seen map[string]seenRow // by id, of the last List
}

// Open opens the database at path, makes it when it is missing, and applies the migrations it lacks.
// Errors: ErrUnsupported when a newer banger wrote it; ErrCorrupt when it is no database; ErrUnavailable without disk space.
func Open(ctx context.Context, path string) (*Store, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "open the database", Subject: path, Err: err}
	}
	file.Close()
	db, err := open(path, url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", "foreign_keys(1)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-256)",
	}})
	if err != nil {
		return nil, err
	}
	s := &Store{db: db}
	if err := s.migrate(ctx, migrations); err != nil {
		db.Close()
		return nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	return s, nil
}

func open(path string, query url.Values) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Compatibility says how a database file and this build fit; its number is an exit status.
type Compatibility int

const (
	Compatible   Compatibility = 0
	NeedsMigrate Compatibility = 1 // a missing file too
	Incompatible Compatibility = 2 // a newer banger wrote it, or it is damaged
)

// Check reads the database at path without changing it.
func Check(ctx context.Context, path string) (Compatibility, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return NeedsMigrate, nil
	}
	db, err := open(path, url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}})
	if err != nil {
		return Incompatible, err
	}
	defer db.Close()
	missing, err := pending(ctx, db, migrations)
	switch {
	case err != nil:
		return Incompatible, fmt.Errorf("check the database %s: %w", path, kinded(err))
	case len(missing) > 0:
		return NeedsMigrate, nil
	}
	return Compatible, nil
}

// Look gives every VM of the database at path, as List does, and the erased ones, without changing it; a daemon may have it open.
func Look(ctx context.Context, path string) (vms []banger.VM, erased map[banger.VMID]bool, err error) {
	db, err := open(path, url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}})
	if err != nil {
		return nil, nil, err
	}
	defer db.Close()
	s := &Store{db: db}
	if vms, err = s.List(ctx); err != nil {
		return nil, nil, err
	}
	erased, err = s.Erased(ctx)
	return vms, erased, err
}

// kinded gives SQLite's errors the kinds that callers tell apart.
func kinded(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff { // the primary code
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "read the database", Err: err, Hint: "put a copy of it back; without one move it away, and the directory vms, which has the disks of the VMs, too"}
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY:
		return &banger.Error{Kind: banger.ErrUnavailable, Op: "use the database", Err: err, Hint: "look at the free space and the rights of the state directory"}
	}
	return err
}

func isUniqueViolation(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}

func now() int64 { return time.Now().UnixNano() }
