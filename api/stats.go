package api

import (
	"time"

	"banger"
)

// RouteStats answers with [Stats]: of the VMs that [RefParam] names, as often as it is given, or of all that run.
const RouteStats = "GET /v1/stats"

// RefParam is the query parameter of [RouteStats] that names a VM.
const RefParam = "ref"

// Stats is what VMs use at one moment.
type Stats struct {
	At     time.Time          `json:"at"`               // when it was measured, by the host's clock
	VMs    []VMStats          `json:"vms"`              // those that were asked for, or all that run, start or stop; empty: none does
	Errors []banger.ErrorBody `json:"errors,omitempty"` // of references that name no VM, in their order
}

// VMStats is what one VM uses. What is not known is absent.
type VMStats struct {
	ID                 banger.VMID          `json:"id"`                             // 12 hexadecimal digits
	Name               string               `json:"name"`                           // at that moment
	State              banger.VMState       `json:"state"`                          // "starting", "running" and so on, as of a VM
	Uptime             time.Duration        `json:"uptime_ns,omitempty"`            // since the guest was ready
	VCPU               int                  `json:"vcpu"`                           // configured
	MemoryMiB          int                  `json:"memory_mib"`                     // configured
	VMM                *banger.ProcessUsage `json:"vmm,omitempty"`                  // what the guest gives back, this no longer has
	Machine            *banger.ProcessUsage `json:"machine,omitempty"`              // of banger-machine
	CPUPercent         *float64             `json:"cpu_percent,omitempty"`          // of one processor, by the VMM: set by Since
	Net                *banger.NetTraffic   `json:"net,omitempty"`                  // since banger-machine started
	Streams            *int                 `json:"streams,omitempty"`              // commands and connections into the guest that are open
	DiskBytes          int64                `json:"disk_bytes,omitempty"`           // size of the disk, as the guest sees it
	DiskAllocatedBytes int64                `json:"disk_allocated_bytes,omitempty"` // what the disk takes up on the host
}

// Since sets the share of a processor that each VM has used since before.
func (s Stats) Since(before Stats) Stats {
	earlier := map[banger.VMID]*banger.ProcessUsage{}
	for _, vm := range before.VMs {
		earlier[vm.ID] = vm.VMM
	}
	vms := make([]VMStats, 0, len(s.VMs))
	for _, vm := range s.VMs {
		if then := earlier[vm.ID]; then != nil && vm.VMM != nil && vm.VMM.Clock > then.Clock {
			percent := 100 * vm.VMM.Share(*then)
			vm.CPUPercent = &percent
		}
		vms = append(vms, vm)
	}
	s.VMs = vms
	return s
}
