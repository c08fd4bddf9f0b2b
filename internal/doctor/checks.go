package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"banger"
	"banger/internal/disk"
	"banger/internal/hostcheck"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/machine"
)

// most is how many bad things of one kind get a row each.
const most = 20

// ordered gives the records by name.
func (d *doctor) ordered() (list []banger.VM) {
	for _, vm := range d.rows {
		list = append(list, vm)
	}
	slices.SortFunc(list, func(a, b banger.VM) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	return list
}

// vms finds records in error and disks that are not there.
func (d *doctor) vms(context.Context) (report []hostcheck.Check) {
	bad := 0
	for _, vm := range d.ordered() {
		if vm.State == banger.StateCreating {
			continue
		}
		name := "vm " + vm.Spec.Name
		err := disk.Check(d.Dir.VM(vm.ID))
		switch {
		case err != nil:
			report = append(report, one(name, hostcheck.Fail, "banger vm delete --force "+vm.Spec.Name, "%v", err)...)
		case d.damaged(vm) != nil:
			report = append(report, d.mendHandles(name, vm)...)
		case vm.State == banger.StateError:
			report = append(report, one(name, hostcheck.Warn, "banger vm start "+vm.Spec.Name+", or: banger vm logs "+vm.Spec.Name, "in error: %s", vm.LastError)...)
		default:
			continue
		}
		if bad++; bad == most {
			break
		}
	}
	if bad == 0 && d.rows != nil {
		return one("vms", hostcheck.Pass, "", "all disks are there")
	}
	return report
}

// damaged says what is wrong with the record of the processes of a VM's last run.
func (d *doctor) damaged(vm banger.VM) error {
	if _, err := machine.ReadHandles(d.Dir.VM(vm.ID)); errors.Is(err, banger.ErrCorrupt) {
		return err
	}
	return nil
}

// mendHandles tells of a damaged record of processes and, if that is asked for, makes it anew from what /proc tells. Beside a daemon it
// only tells: that does the same when it starts or stops the VM.
func (d *doctor) mendHandles(name string, vm banger.VM) []hostcheck.Check {
	damage, hint := d.damaged(vm), "banger doctor --fix"
	if d.serving {
		hint = "banger vm start " + vm.Spec.Name + ", or banger vm stop " + vm.Spec.Name
	}
	if !d.Fix || d.serving {
		return one(name, hostcheck.Warn, hint, "%v", damage)
	}
	home := d.Dir.VM(vm.ID)
	handles, err := machine.FindHandles(d.Dir, vm.ID)
	switch {
	case err != nil:
	case handles.Supervisor.PID == 0 && handles.VMM.PID == 0:
		err = os.Remove(home.Handles())
	default:
		err = machine.WriteHandles(home, handles)
	}
	if err != nil {
		return failed(name, err)
	}
	return one(name, hostcheck.Pass, "", "made anew: %s, which was damaged", home.Handles())
}

// strayDirectories finds directories that no record names.
func (d *doctor) strayDirectories(context.Context) []hostcheck.Check {
	const name = "leftovers"
	entries, err := os.ReadDir(d.Dir.VMs())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(name, err)
	}
	var ours, unknown, foreign []string
	for _, entry := range entries {
		id, err := banger.ParseVMID(entry.Name())
		if _, known := d.rows[id]; err != nil || !entry.IsDir() {
			foreign = append(foreign, entry.Name())
		} else if !known && d.erased[id] {
			ours = append(ours, entry.Name())
		} else if !known && !d.serving { // the daemon may be making that VM
			unknown = append(unknown, entry.Name())
		}
	}
	var report []hostcheck.Check
	if len(ours) > 0 {
		report = one(name, hostcheck.Warn, "banger doctor --fix", "%d directories of VMs that are gone in %s, such as %s", len(ours), d.Dir.VMs(), ours[0])
	}
	if len(unknown) > 0 && d.rows != nil {
		report = append(report, one(name, hostcheck.Warn, "give the disk to a new VM, or remove the directory yourself: docs/recovery.md",
			"%d directories of VMs that the database does not know in %s, such as %s; nothing of them is removed", len(unknown), d.Dir.VMs(), unknown[0])...)
	}
	if len(foreign) > 0 {
		report = append(report, one(name, hostcheck.Warn, "look at them and remove them yourself", "%d things that are not banger's in %s, such as %.80q", len(foreign), d.Dir.VMs(), foreign[0])...)
	}
	if report == nil {
		return one(name, hostcheck.Pass, "", "no directories of VMs that are gone")
	}
	return report
}

// images reads every manifest.
func (d *doctor) images(context.Context) []hostcheck.Check {
	manager := image.New(image.Config{Dir: d.Dir})
	return d.each("image", d.Dir.Images(), func(name string) string {
		return "rm -r " + d.Dir.Images() + "/" + name + "; its VMs do not start without it"
	}, func(name string) error {
		_, err := manager.Get(name)
		return err
	})
}

// kernels reads every manifest.
func (d *doctor) kernels(context.Context) []hostcheck.Check {
	manager := kernel.New(kernel.Config{Dir: d.Dir})
	return d.each("kernel", d.Dir.Kernels(), func(name string) string { return "banger kernel delete " + name }, func(name string) error {
		_, err := manager.Get(name)
		return err
	})
}

// each looks at everything in a directory but what is being made.
func (d *doctor) each(kind, dir string, hint func(name string) string, read func(name string) error) (report []hostcheck.Check) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(kind+"s", err)
	}
	good, unfinished := 0, 0
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			unfinished++
			continue
		}
		if err := read(entry.Name()); err == nil {
			good++
		} else if len(report) < most {
			report = append(report, one(kind, hostcheck.Fail, hint(entry.Name()), "%v", err)...)
		}
	}
	if unfinished > 0 && !d.serving {
		report = append(report, one(kind+"s", hostcheck.Warn, "banger doctor --fix", "%d that are not finished in %s", unfinished, dir)...)
	}
	if report == nil {
		return one(kind+"s", hostcheck.Pass, "", "%d are there and whole", good)
	}
	return report
}
