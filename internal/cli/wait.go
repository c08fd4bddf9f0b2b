package cli

import (
	"context"
	"errors"
	"time"

	"banger"
	"banger/api"
	"banger/internal/machine"
)

// quickInit is how long an init may take to answer before it is shown that it is waited for.
const quickInit = 50 * time.Millisecond

// waitFor is a flag: what a command in a VM waits for.
type waitFor string

const (
	waitForAgent  waitFor = "agent"
	waitForSystem waitFor = "system"
)

func (w *waitFor) Set(text string) error {
	switch waitFor(text) {
	case waitForAgent, waitForSystem:
		*w = waitFor(text)
		return nil
	}
	return errors.New("want system or agent")
}

func (w *waitFor) String() string { return string(*w) }
func (w *waitFor) Type() string   { return "what" }

// awaitInit waits, if that is wanted, for the init of a VM whose image has one. An init that does not come up keeps nobody from
// running a command: that is told, and so is one that failed in parts. What is wrong with the machine the command finds out.
func (a *app) awaitInit(ctx context.Context, vm api.VMDetail, wait waitFor) error {
	if wait != waitForSystem {
		return nil
	}
	show, end := a.progress()
	slow := time.AfterFunc(quickInit, func() { show.Report(banger.Progress{Stage: "system", Text: "the image's own init comes up"}) })
	status, err := a.machine(vm).Init(ctx)
	waited := !slow.Stop()
	end()
	switch {
	case errors.Is(err, banger.ErrInterrupted):
		return err
	case err != nil:
		return nil
	case status.Init == machine.InitStarting && status.Exit == nil:
		a.notice("the image's own init is not up after %s: going on without it (--wait agent does not wait)", machine.InitPatience)
	case waited && status.Init != "running" && status.Init != "":
		a.notice("the image's own init says %q: banger vm exec %s -- systemctl --failed", status.Init, vm.Spec.Name)
	}
	return nil
}
