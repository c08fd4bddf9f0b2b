package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"banger"
	"banger/api"
)

func (v *vms) Resolve(_ context.Context, refs []string) ([]api.ResolvedVM, error) {
	resolved := []api.ResolvedVM{}
	for _, ref := range refs {
		vm, err := v.get(ref)
		one := api.ResolvedVM{Ref: ref, ID: vm.ID, Name: vm.Spec.Name}
		if err != nil {
			body := banger.EncodeError(err, "")
			one.Error = &body
		}
		resolved = append(resolved, one)
	}
	return resolved, nil
}

func (v *vms) Restart(_ context.Context, ref string, req api.RestartRequest, _ banger.ProgressFunc) (banger.VM, error) {
	if req.Timeout != 3*time.Second || !req.Overcommit {
		return banger.VM{}, banger.Invalidf("request %+v", req)
	}
	return v.get(ref)
}

func (v *vms) Kill(_ context.Context, ref, signal string, _ banger.ProgressFunc) (banger.VM, error) {
	if signal != "TERM" {
		return banger.VM{}, banger.Invalidf("signal %s", signal)
	}
	return v.get(ref)
}

func (v *vms) Rename(_ context.Context, ref, name string, progress banger.ProgressFunc) (banger.VM, error) {
	progress.Notice("rename", "told")
	vm, err := v.get(ref)
	vm.Spec.Name = name
	return vm, err
}

func (v *vms) SetWorkspace(_ context.Context, ref string, ws banger.Workspace) (banger.VM, error) {
	vm, err := v.get(ref)
	vm.Workspaces = []banger.Workspace{ws}
	return vm, err
}

func (v *vms) Set(_ context.Context, ref string, change banger.SpecChange, dryRun bool) (api.SetResult, error) {
	vm, err := v.get(ref)
	result := api.SetResult{VM: vm}
	for _, field := range change.Fields(vm.Spec) {
		result.Changes = append(result.Changes, api.Change{FieldChange: field, When: fmt.Sprint(dryRun)})
	}
	return result, err
}

func (v *vms) Wait(ctx context.Context, ref, what string) (banger.VM, error) {
	if what == "never" {
		v.waits <- struct{}{}
		<-ctx.Done()
		return banger.VM{}, &banger.Error{Kind: banger.ErrInterrupted, Err: ctx.Err()}
	}
	return v.get(ref)
}

func TestVerbs(t *testing.T) {
	s := serve(t, os.Getuid())
	ctx := t.Context()
	if vm, err := s.RestartVM(ctx, "devbox", api.RestartRequest{Timeout: 3 * time.Second, Overcommit: true}, nil); err != nil || vm.Spec.Name != "devbox" {
		t.Errorf("RestartVM = %+v, %v", vm, err)
	}
	if vm, err := s.KillVM(ctx, "devbox", "TERM", nil); err != nil || vm.Spec.Name != "devbox" {
		t.Errorf("KillVM = %+v, %v", vm, err)
	}
	told := ""
	if vm, err := s.RenameVM(ctx, "devbox", "other", func(p banger.Progress) { told = p.Text }); err != nil || vm.Spec.Name != "other" || told != "told" {
		t.Errorf("RenameVM = %+v, %v, told %q", vm, err, told)
	}
	if vm, err := s.WaitVM(ctx, "devbox", "stopped"); err != nil || vm.Spec.Name != "devbox" {
		t.Errorf("WaitVM = %+v, %v", vm, err)
	}
	if _, err := s.WaitVM(ctx, "nosuch", "stopped"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("WaitVM of an unknown VM = %v", err)
	}
	four, gone := 4, map[string]*string{"old": nil}
	set, err := s.SetVM(ctx, "devbox", api.SetRequest{SpecChange: banger.SpecChange{VCPU: &four, Labels: gone}, DryRun: true})
	if err != nil || len(set.Changes) != 1 || set.Changes[0] != (api.Change{FieldChange: banger.FieldChange{Field: "vcpu", From: "0", To: "4"}, When: "true"}) {
		t.Errorf("SetVM = %+v, %v", set, err)
	}
	if list, err := s.Settings(ctx); err != nil || len(list) != 1 || list[0].From != "built in" {
		t.Errorf("Settings = %+v, %v", list, err)
	}
	got, err := s.ResolveVMs(ctx, []string{"devbox", "nosuch"})
	if err != nil || len(got) != 2 || got[0].ID == "" || got[1].Error == nil || got[1].Error.Kind != "not_found" {
		t.Errorf("ResolveVMs = %+v, %v", got, err)
	}
	if _, err := s.ResolveVMs(ctx, make([]string, api.MaxRefs+1)); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("ResolveVMs of too many = %v", err)
	}
}

// Who waits does not keep the daemon from ending, and learns that it did.
func TestWaitEndsWithTheDaemon(t *testing.T) {
	s := serve(t, os.Getuid())
	failed := make(chan error, 1)
	go func() {
		_, err := s.WaitVM(context.Background(), "devbox", "never")
		failed <- err
	}()
	<-s.vms.waits
	s.Server.Close(t.Context())
	if err := <-failed; !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("WaitVM = %v, want unavailable", err)
	}
}

func (v *vms) SetNet(_ context.Context, ref string, change banger.NetChange) (banger.VM, error) {
	vm, err := v.get(ref)
	if err == nil {
		vm.Spec.Net, err = change.Apply(vm.Spec.Net)
	}
	return vm, err
}
