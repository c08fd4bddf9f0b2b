// Package hostcheck says whether a host can run banger, check by check, with what to do about each. The daemon's preflight and
// the doctor use the same checks, so their words agree. It starts nothing: what asks the host is given to it.
package hostcheck

import (
	"errors"
	"strings"

	"banger"
)

// Status is the outcome of a check.
type Status string

const (
	Pass Status = "PASS"
	Warn Status = "WARN" // works, but slower, weaker or not for long
	Fail Status = "FAIL"
)

// Check is one answer.
type Check struct {
	Name    string `json:"name"`           // "kvm", "vm devbox": docs/doctor.md has each
	Status  Status `json:"status"`         // "PASS", "WARN" or "FAIL"
	Details string `json:"details"`        // for people: what was found
	Hint    string `json:"hint,omitempty"` // the next step; may be empty
}

// Err is nil unless the check failed. Its kind is ErrUnavailable.
func (c Check) Err() error {
	if c.Status != Fail {
		return nil
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "check", Subject: c.Name, Err: errors.New(c.Details), Hint: c.Hint}
}

// Rows are the names that checks have, in the order of the doctor's report; "vm" stands for "vm NAME". docs/doctor.md has each.
var Rows = []string{"host", "cpu", "architecture", "qemu", "kvm", "confinement", "mmdebstrap", "subordinate ids", "user namespaces", "programs", "disk space",
	"file system", "limits", "inotify", "linger", "clock", "state directory", "database", "vm", "vms", "leftovers", "image", "images", "kernel", "kernels", "processes",
	"daemon", "configuration", "names", "ssh"}

// Report is the answers in order.
type Report []Check

// Err is the first failure; nil when nothing failed.
func (r Report) Err() error {
	for _, c := range r {
		if err := c.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Status is the worst of all.
func (r Report) Status() Status {
	worst := Pass
	for _, c := range r {
		if c.Status == Fail || c.Status == Warn && worst == Pass {
			worst = c.Status
		}
	}
	return worst
}

func failed(name string, err error) Check {
	return Check{Name: name, Status: Fail, Details: strings.TrimSpace(err.Error()), Hint: banger.HintOf(err)}
}
