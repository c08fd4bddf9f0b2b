package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// queue holds the transactions that wait for their turn.
type queue struct {
	mu      sync.Mutex
	waiting []transaction
	busy    bool // somebody commits
}

type transaction struct {
	ctx  context.Context // of who waits
	fn   func(ctx context.Context, tx *sql.Tx) error
	done chan error
}

// within runs fn in one transaction, which is on the disk when it returns. Those that wait at the same time share one sync of the disk;
// each is undone alone when its fn fails. One whose ctx has ended before its turn is not run; from then on it is not cut short, as that
// would undo the others.
func (s *Store) within(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	t := transaction{ctx, fn, make(chan error, 1)}
	s.queue.mu.Lock()
	s.queue.waiting = append(s.queue.waiting, t)
	first := !s.queue.busy
	s.queue.busy = true
	s.queue.mu.Unlock()
	if first {
		go s.commitAll()
	}
	return <-t.done
}

// commitAll ends when nobody waits.
func (s *Store) commitAll() {
	for {
		s.queue.mu.Lock()
		group := s.queue.waiting
		s.queue.waiting = nil
		s.queue.busy = len(group) > 0
		s.queue.mu.Unlock()
		if len(group) == 0 {
			return
		}
		for i, err := range s.commit(group) {
			group[i].done <- err
		}
	}
}

// commit runs transactions as one and gives how each has ended.
func (s *Store) commit(group []transaction) []error {
	ended := make([]error, len(group))
	all := func(err error) []error {
		for i := range ended {
			if ended[i] == nil {
				ended[i] = kinded(err)
			}
		}
		return ended
	}
	tx, err := s.db.BeginTx(context.Background(), nil)
	if err != nil {
		return all(err)
	}
	for i, t := range group {
		var broken error
		if ended[i], broken = t.run(tx); broken != nil { // such as a full disk: SQLite has undone all of them
			return all(errors.Join(broken, tx.Rollback()))
		}
	}
	return all(tx.Commit())
}

// run gives the error of one transaction, whose effects are undone then; broken when they can't be without the others'.
func (t transaction) run(tx *sql.Tx) (err, broken error) {
	if err := t.ctx.Err(); err != nil {
		return err, nil
	}
	ctx := context.WithoutCancel(t.ctx)
	if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return nil, err
	}
	if err = t.fn(ctx, tx); err != nil {
		_, broken = tx.ExecContext(ctx, "ROLLBACK TO one")
	}
	if broken == nil {
		_, broken = tx.ExecContext(ctx, "RELEASE one")
	}
	return kinded(err), broken
}
