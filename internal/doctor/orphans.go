package doctor

import (
	"context"

	"banger"
	"banger/internal/hostcheck"
	"banger/internal/machine"
)

// orphans finds processes that were started for VMs which are gone or do not run.
func (d *doctor) orphans(ctx context.Context) []hostcheck.Check {
	const name = "processes"
	if d.rows == nil {
		return nil // whose they are is not known
	}
	found, err := machine.FindProcesses(d.Dir)
	if err != nil {
		return failed(name, err)
	}
	var report []hostcheck.Check
	for _, p := range found {
		vm, known := d.rows[p.VM]
		if known && vm.State != banger.StateStopped && vm.State != banger.StateError {
			continue
		}
		if !known && d.serving {
			continue // the daemon may be making that VM
		}
		if !d.Fix {
			report = append(report, one(name, hostcheck.Fail, "banger doctor --fix", "process %d (%s) belongs to vm %s, which does not run", p.Handle.PID, p.Program, p.VM)...)
			continue
		}
		if err := p.Handle.Kill(ctx); err != nil {
			report = append(report, failed(name, err)...)
			continue
		}
		report = append(report, one(name, hostcheck.Pass, "", "ended process %d (%s) of vm %s, which did not run", p.Handle.PID, p.Program, p.VM)...)
	}
	if report == nil {
		return one(name, hostcheck.Pass, "", "%d, all of VMs that run", len(found))
	}
	return report
}
