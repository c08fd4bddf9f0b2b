package doctor

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"

	"banger"
	"banger/internal/hostcheck"
	"banger/internal/proc"
)

// orphans finds processes that were started for VMs which are gone or do not run.
func (d *doctor) orphans(ctx context.Context) []hostcheck.Check {
	const name = "processes"
	if d.rows == nil {
		return nil // whose they are is not known
	}
	found, err := d.processes()
	if err != nil {
		return failed(name, err)
	}
	var report []hostcheck.Check
	for _, p := range found {
		vm, known := d.rows[p.vm]
		if known && vm.State != banger.StateStopped && vm.State != banger.StateError {
			continue
		}
		if !known && d.serving {
			continue // the daemon may be making that VM
		}
		if !d.Fix {
			report = append(report, one(name, hostcheck.Fail, "banger doctor --fix", "process %d (%s) belongs to vm %s, which does not run", p.handle.PID, p.program, p.vm)...)
			continue
		}
		if err := p.handle.Kill(ctx); err != nil {
			report = append(report, failed(name, err)...)
			continue
		}
		report = append(report, one(name, hostcheck.Pass, "", "ended process %d (%s) of vm %s, which did not run", p.handle.PID, p.program, p.vm)...)
	}
	if report == nil {
		return one(name, hostcheck.Pass, "", "%d, all of VMs that run", len(found))
	}
	return report
}

// process is one that works for a VM of this state directory.
type process struct {
	handle  proc.Handle
	program string
	vm      banger.VMID
}

// processes finds them by what they were started with: a path below the VMs' directories.
func (d *doctor) processes() (found []process, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		handle, err := proc.HandleOf(pid) // first: what is read afterwards is of this process or of none
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err != nil {
			continue // it ended, or is somebody else's
		}
		program, args, _ := bytes.Cut(text, []byte{0})
		base := string(program[bytes.LastIndexByte(program, '/')+1:])
		if base != "banger-machine" && !strings.HasPrefix(base, "qemu-system-") {
			continue
		}
		if id, ok := idIn(string(args), d.Dir.VMs()+"/"); ok {
			found = append(found, process{handle, base, id})
		}
	}
	return found, nil
}

// idLength is that of a VM's id.
const idLength = 12

// idIn finds the VM whose directory stands in text.
func idIn(text, prefix string) (banger.VMID, bool) {
	for {
		_, after, found := strings.Cut(text, prefix)
		if !found {
			return "", false
		}
		if len(after) >= idLength {
			if id, err := banger.ParseVMID(after[:idLength]); err == nil {
				return id, true
			}
		}
		text = after
	}
}
