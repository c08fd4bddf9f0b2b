package api

import (
	"time"

	"banger"
)

// Routes of operations: the requests that answer with events. {ref} is an operation's id or a unique beginning of it.
const (
	RouteOperationList   = "GET /v1/operations"
	RouteOperationShow   = "GET /v1/operations/{ref}"
	RouteOperationFollow = "GET /v1/operations/{ref}/events"
	RouteOperationCancel = "POST /v1/operations/{ref}/cancel"
)

// DetachParam is the query parameter that lets an operation go on without its client. The only event of the answer is the
// [Operation] then, once it has made its first step.
const DetachParam = "detach"

// OperationState says whether an operation runs, or how it ended.
type OperationState string

const (
	OperationRunning   OperationState = "running"
	OperationDone      OperationState = "done"
	OperationFailed    OperationState = "failed"
	OperationCancelled OperationState = "cancelled" // what it made is undone
)

// Operation is one request that takes long. The daemon forgets all but the last ones that ended, and all when it ends itself.
type Operation struct {
	ID        string            `json:"id"`                   // "op-" and eight hexadecimal digits
	Kind      string            `json:"kind"`                 // verb phrase: "create vm"
	Subject   string            `json:"subject,omitempty"`    // the object: "devbox"
	ClientPID int               `json:"client_pid,omitempty"` // 0: of another pid namespace
	Detached  bool              `json:"detached,omitempty"`   // it goes on without its client; absent: it ends with it, unless it has to be done once begun
	State     OperationState    `json:"state"`                // "running", "done", "failed" or "cancelled"
	StartedAt time.Time         `json:"started_at"`           // when the daemon took it on
	EndedAt   time.Time         `json:"ended_at,omitzero"`    // absent: it runs
	Stages    []banger.Progress `json:"stages,omitempty"`     // where each stage is, in the order in which they began
	Result    *Event            `json:"result,omitempty"`     // what it made; once done
	Error     *banger.ErrorBody `json:"error,omitempty"`      // why it failed or was cancelled; absent: it runs or is done
}
