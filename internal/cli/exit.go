package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"banger"
)

// Exit statuses; a command in a VM has its own.
const (
	statusOther       = 1
	statusUsage       = 2
	statusNotFound    = 3
	statusConflict    = 4
	statusUnavailable = 5
	statusRefused     = 6
	statusFailed      = 125 // run, exec and shell: banger itself failed
	statusInterrupted = 130
)

var statuses = []struct {
	kind   error
	status int
}{
	{banger.ErrInvalid, statusUsage},
	{banger.ErrInterrupted, statusInterrupted},
	{banger.ErrNotFound, statusNotFound},
	{banger.ErrConflict, statusConflict},
	{banger.ErrUnavailable, statusUnavailable},
	{banger.ErrRefused, statusRefused},
}

// errSignal ends the work: a signal asked for it.
var errSignal = &banger.Error{Kind: banger.ErrInterrupted}

// commandExit is how a command in a VM ended with another status than 0.
type commandExit struct {
	status int
	err    error // why it could not be started; nil when it ran
}

func (e commandExit) Unwrap() error { return e.err }

func (e commandExit) Error() string {
	if e.err != nil {
		return e.err.Error()
	}
	return fmt.Sprintf("exit status %d", e.status)
}

// streamError is a failure of banger itself in a command whose status is otherwise the guest's.
type streamError struct{ error }

func (e streamError) Unwrap() error { return e.error }

// failures are the errors of one command on several VMs, in the order of its arguments.
type failures []error

func (f failures) Error() string   { return errors.Join(f...).Error() }
func (f failures) Unwrap() []error { return f }

func separate(err error) []error {
	if list, ok := errors.AsType[failures](err); ok {
		return list
	}
	return []error{err}
}

// statusOf gives the exit status; that of the first when there are several errors.
func statusOf(err error) int {
	err = separate(err)[0]
	if exit, ok := errors.AsType[commandExit](err); ok {
		return exit.status
	}
	_, stream := errors.AsType[streamError](err)
	for _, s := range statuses {
		if !errors.Is(err, s.kind) {
			continue
		}
		if stream && s.status != statusUsage && s.status != statusInterrupted {
			break
		}
		return s.status
	}
	if stream {
		return statusFailed
	}
	return statusOther
}

// showError writes one error: for programs as JSON, for people with the next step and what finds it in the log.
func (a *app) showError(err error) {
	if exit, ok := errors.AsType[commandExit](err); ok && exit.err == nil {
		return
	}
	body := banger.EncodeError(err, "")
	if errors.Is(err, errSignal) || errors.Is(err, context.Canceled) {
		body.Kind, body.Message = banger.KindName(errSignal), "interrupted"
	}
	if a.json && a.template == nil {
		_ = json.NewEncoder(a.Err).Encode(body)
		return
	}
	color := a.color()
	text := color(red, "banger:") + " " + strings.ReplaceAll(escape(body.Message, '\n', '\t'), "\n", "\n  ")
	if body.OpID != "" {
		text += " " + color(dim, "("+escape(body.OpID)+")")
	}
	if body.Hint != "" {
		text += "\nhint: " + strings.ReplaceAll(escape(body.Hint, '\n', '\t'), "\n", "\n  ")
	}
	fmt.Fprintln(a.Err, text)
}
