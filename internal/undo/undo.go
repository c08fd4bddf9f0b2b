// Package undo takes back, in reverse order, what a failed operation has done so far.
package undo

import "errors"

// Stack is the undos of the steps done so far. The zero value is empty and ready.
type Stack struct{ steps []func() error }

// Push adds the undo of a step that has just been done.
func (s *Stack) Push(undo func() error) { s.steps = append(s.steps, undo) }

// Run calls every undo, newest first, and empties the stack. One that fails does not keep the others from running; the
// errors are joined.
func (s *Stack) Run() error {
	var errs []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		errs = append(errs, s.steps[i]())
	}
	s.steps = nil
	return errors.Join(errs...)
}

// Discard forgets every undo: the operation has succeeded.
func (s *Stack) Discard() { s.steps = nil }
