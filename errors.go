package banger

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of failure. A kind decides the exit status and the HTTP status; match it with errors.Is.
var (
	ErrInvalid     = errors.New("invalid")     // the caller's input breaks a rule
	ErrNotFound    = errors.New("not found")   // no such VM, image, kernel or operation
	ErrConflict    = errors.New("conflict")    // wrong state for this operation, or name taken
	ErrUnavailable = errors.New("unavailable") // daemon, tool, guest, mirror or disk space is not there
	ErrRefused     = errors.New("refused")     // a policy forbids it, or consent is missing
	ErrUnsupported = errors.New("unsupported") // a format, feature or version that banger does not know
	ErrCorrupt     = errors.New("corrupt")     // stored bytes fail their own check
	ErrInterrupted = errors.New("interrupted") // the user or a deadline ended it
)

// kinds maps each kind to its name on the wire, in a fixed order.
var kinds = []struct {
	name string
	err  error
}{
	{"invalid", ErrInvalid},
	{"not_found", ErrNotFound},
	{"conflict", ErrConflict},
	{"unavailable", ErrUnavailable},
	{"refused", ErrRefused},
	{"unsupported", ErrUnsupported},
	{"corrupt", ErrCorrupt},
	{"interrupted", ErrInterrupted},
}

// Error says what failed on which object. Kind decides the wire code; Hint is the user's next step.
type Error struct {
	Kind    error  // one of the kinds above; nil means internal
	Op      string // verb phrase: "start vm"
	Subject string // the object: "devbox"
	Hint    string // the next step; may be empty
	OpID    string // the operation whose log lines tell more; may be empty
	Err     error  // cause; may be nil
}

// Error joins operation, subject and cause. It leaves the hint out: who shows the error shows the hint beside it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Subject != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(e.Subject)
	}
	cause := e.Err
	if cause == nil {
		cause = e.Kind
	}
	if cause != nil {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(cause.Error())
	}
	return b.String()
}

// Is reports whether target is the error's kind.
func (e *Error) Is(target error) bool { return e.Kind != nil && target == e.Kind }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Invalidf makes an ErrInvalid with a message and no operation.
func Invalidf(format string, args ...any) error {
	return &Error{Kind: ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// KindName gives the wire name of err's kind: "not_found", or "internal" for an error without a kind.
func KindName(err error) string {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	return "internal"
}

// KindByName is the inverse of KindName; nil for "internal" and unknown names.
func KindByName(name string) error {
	for _, k := range kinds {
		if k.name == name {
			return k.err
		}
	}
	return nil
}

// HintOf gives the first hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// ErrorBody is an error on the wire (daemon API, machine.sock, --json).
type ErrorBody struct {
	Kind    string `json:"kind"`            // "invalid", "not_found", "conflict", "unavailable", "refused", "unsupported", "corrupt", "interrupted" or "internal"
	Message string `json:"message"`         // for people: what failed on which object, and why
	Hint    string `json:"hint,omitempty"`  // the next step; absent: none is known
	OpID    string `json:"op_id,omitempty"` // of the operation or request, whose lines in the daemon's log tell more; absent: there is none
}

// EncodeError turns err into its wire form. opID may be empty.
func EncodeError(err error, opID string) ErrorBody {
	body := ErrorBody{Kind: KindName(err), Message: err.Error(), Hint: HintOf(err), OpID: opID}
	var e *Error
	if body.OpID == "" && errors.As(err, &e) {
		body.OpID = e.OpID
	}
	return body
}

// Decode rebuilds an error from its wire form: kind, message, hint and operation id are kept.
func (b ErrorBody) Decode() error {
	return &Error{Kind: KindByName(b.Kind), Hint: b.Hint, OpID: b.OpID, Err: errors.New(b.Message)}
}
