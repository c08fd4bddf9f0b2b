package lifecycle

import (
	"context"
	"sync"
	"time"

	"banger"
	"banger/internal/machine"
)

const (
	// idleLook is how long the daemon sleeps between two looks at the VMs that stop when nobody uses them.
	idleLook = time.Minute
	// idleShare is what an idle guest may use of one processor. Under emulation, where it costs most, one that only has its agent uses
	// less than a hundredth.
	idleShare = 0.05
	// idleBytes is what an idle guest may receive and send between two looks: keep-alives, the time of day and an HTTPS request or two
	// need less, a download or a page that is served more.
	idleBytes = 16 << 10
)

// idleness watches the VMs that stop when nobody uses them. A VM is used while a command, a shell or a connection into it is open,
// and in a minute in which one began or in which its guest worked or moved data over the network. What is seen is not kept over the
// end of the daemon: then the time begins anew.
type idleness struct {
	*Manager
	next time.Time // no look before
	seen map[banger.VMID]lastUse
}

// lastUse is the last look at a VM.
type lastUse struct {
	boots int
	stats machine.Stats
	at    time.Time // when it was last seen in use
}

// look stops what has been idle long enough, and tells how long nothing is to be done, if any VM is to be watched.
func (i *idleness) look(ctx context.Context, list []banger.VM) (wait time.Duration, some bool) {
	var watched []banger.VM
	for _, vm := range list {
		if vm.State == banger.StateRunning && vm.Spec.StopIdle > 0 {
			watched = append(watched, vm)
		}
	}
	now := time.Now()
	if len(watched) == 0 {
		i.seen = nil
		return 0, false
	}
	if left := i.next.Sub(now); left > 0 && i.seen != nil {
		return left, true
	}
	i.next = now.Add(idleLook)
	all := i.ask(ctx, watched)
	seen := map[banger.VMID]lastUse{}
	for n, vm := range watched {
		last, known := i.seen[vm.ID]
		use := lastUse{boots: vm.Boots, stats: all[n], at: last.at}
		if !known || last.boots != vm.Boots || used(last.stats, use.stats) {
			use.at = now
		}
		seen[vm.ID] = use
		if now.Sub(use.at) >= vm.Spec.StopIdle {
			delete(seen, vm.ID) // after a failure the time begins anew
			i.spawn(ctx, func(ctx context.Context) { i.stopIdle(ctx, vm, use.stats) })
		}
	}
	i.seen = seen
	return idleLook, true
}

// ask gives what each VM uses; nothing of one whose supervisor does not answer.
func (i *idleness) ask(ctx context.Context, vms []banger.VM) []machine.Stats {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	all := make([]machine.Stats, len(vms))
	var group sync.WaitGroup
	for n, vm := range vms {
		group.Go(func() {
			stats, err := i.Machines.Stats(ctx, vm.ID)
			if err != nil {
				i.Log.DebugContext(ctx, "ask what a run uses", "vm", vm.ID, "err", err)
				return
			}
			all[n] = stats
		})
	}
	group.Wait()
	return all
}

// used tells whether a VM was used between two looks at it. What is not known counts as use.
func used(before, now machine.Stats) bool {
	return now.VMM == nil || before.VMM == nil || now.VMM.CPU < before.VMM.CPU || now.VMM.Share(*before.VMM) > idleShare || streamed(before, now) ||
		moved(before, now)
}

// moved tells whether the guest received or sent more between the two than one that idles, or its supervisor has begun to count anew.
func moved(before, now machine.Stats) bool {
	received, sent := now.Net.ReceivedBytes-before.Net.ReceivedBytes, now.Net.SentBytes-before.Net.SentBytes
	return received < 0 || sent < 0 || received+sent > idleBytes
}

// streamed tells whether a command or connection is open, or was between the two.
func streamed(before, now machine.Stats) bool {
	return now.Streams.Open > 0 || now.Streams.Begun != before.Streams.Begun
}

// stopIdle stops a VM unless it is used after all.
func (m *Manager) stopIdle(ctx context.Context, vm banger.VM, last machine.Stats) {
	release, err := m.claims.take(ctx, vm.ID)
	if err != nil {
		return
	}
	defer release()
	now, err := m.Store.Get(ctx, string(vm.ID))
	if err != nil || now.State != banger.StateRunning || now.Boots != vm.Boots || now.Spec.StopIdle != vm.Spec.StopIdle {
		return
	}
	if stats, err := m.Machines.Stats(ctx, vm.ID); err != nil || streamed(last, stats) || moved(last, stats) {
		return
	}
	m.active.Add(1)
	defer m.rest()
	now, err = m.Store.Update(ctx, vm.ID, func(row *banger.VM) error {
		row.State, row.StopReason = banger.StateStopping, "nobody used it for "+banger.FormatDuration(vm.Spec.StopIdle)
		return nil
	})
	if err == nil {
		_, err = m.shutdown(ctx, now, m.stopTimeout(now, 0))
	}
	if err != nil {
		m.Log.ErrorContext(ctx, "stop idle vm", "vm", vm.ID, "name", vm.Spec.Name, "err", err)
	}
}
