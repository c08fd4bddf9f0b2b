package qemu

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"banger"
	"banger/internal/proc"
	"banger/internal/vmm"
)

// events is what QEMU told about the end of the machine.
type events struct {
	panicked bool
	shutdown string // reason of the last SHUTDOWN
}

// ending is all that is known when QEMU is gone.
type ending struct {
	events    events
	killed    bool  // we killed it
	inherited bool  // it was no child of ours: err means nothing
	err       error // of the process: nil for exit status 0, or *proc.ExitError
	words     string
}

// exit tells the cause. What the guest did counts more than a kill that came too late.
func (e ending) exit() vmm.Exit {
	switch {
	case e.events.panicked || e.events.shutdown == "guest-panic":
		return vmm.Exit{Cause: banger.ExitPanic, Detail: "the guest's kernel panicked"}
	case e.events.shutdown == "guest-shutdown":
		return vmm.Exit{Cause: banger.ExitPowerOff, Detail: "the guest powered off"}
	case e.events.shutdown == "guest-reset":
		return vmm.Exit{Cause: banger.ExitReboot, Detail: "the guest rebooted"}
	case e.killed:
		return vmm.Exit{Cause: banger.ExitKilled, Detail: "banger killed QEMU"}
	}
	return vmm.Exit{Cause: banger.ExitCrash, Detail: e.crash()}
}

// crash describes the end of a QEMU that nobody asked to end.
func (e ending) crash() string {
	var exit *proc.ExitError
	switch {
	case e.events.shutdown != "":
		return "QEMU was told to end: " + oneLine(e.events.shutdown)
	case e.inherited:
		return "QEMU ended; its exit status went to a supervisor that died before"
	case errors.As(e.err, &exit):
		exit.Program, exit.Stderr = "QEMU", e.words
		return oneLine(exit.Error())
	case e.err != nil:
		return oneLine(fmt.Sprintf("QEMU: %v", e.err))
	}
	return "QEMU ended with exit status 0 and did not say why"
}

// maxDetail bounds what of QEMU's words goes into a record.
const maxDetail = 400

// oneLine makes text of QEMU, which may hold text of the guest, fit for a person's terminal.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) > maxDetail {
		text = strings.ToValidUTF8(text[:maxDetail], "") + "…"
	}
	return text
}
