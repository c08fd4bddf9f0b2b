package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/proc"
	"banger/internal/statedir"
)

// Handles are the processes of a run, written to handles.json before anything depends on them.
type Handles struct {
	Supervisor proc.Handle `json:"supervisor"`
	VMM        proc.Handle `json:"vmm,omitzero"`
	Attempt    int         `json:"attempt,omitempty"` // which boot the VMM is
	Ready      bool        `json:"ready,omitempty"`   // its guest has been ready
}

// ReadHandles reads handles.json. Errors: fs.ErrNotExist; ErrCorrupt.
func ReadHandles(dir statedir.VMDir) (handles Handles, err error) {
	text, err := os.ReadFile(dir.Handles())
	if errors.Is(err, os.ErrNotExist) {
		return handles, err
	}
	if err == nil {
		err = json.Unmarshal(text, &handles)
	}
	if err == nil && handles.Supervisor.PID <= 0 && handles.VMM.PID <= 0 {
		err = errors.New("no process is named in it")
	}
	if err != nil {
		return Handles{}, &banger.Error{Kind: banger.ErrCorrupt, Op: "read the processes of the last run", Err: fmt.Errorf("%s: %w", dir.Handles(), err)}
	}
	return handles, nil
}

// WriteHandles writes handles.json durably.
func WriteHandles(dir statedir.VMDir, handles Handles) error {
	text, err := json.Marshal(handles)
	if err != nil {
		return err
	}
	return atomicfile.Write(dir.Handles(), append(text, '\n'), 0o600)
}

// Process is one that works for a VM.
type Process struct {
	Handle     proc.Handle
	Program    string // its name
	VM         banger.VMID
	Supervisor bool // else a VMM, or what is about to become one
}

// FindProcesses finds this user's processes that work for VMs of a state directory, whatever has been recorded of them: by what they were
// started with, which is a path below the VMs' directories.
func FindProcesses(dir statedir.Dir) (found []Process, err error) {
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
		if err != nil || !handle.Alive() {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err != nil || !isOwn(entry.Name()) {
			continue
		}
		if p, ok := worksFor(dir, strings.Split(string(text), "\x00")); ok {
			p.Handle = handle
			found = append(found, p)
		}
	}
	return found, nil
}

// FindHandles finds the processes of a VM's last run that live, without what was recorded of them. A VMM counts as one whose guest has been
// ready: it is not to be ended for being late.
func FindHandles(dir statedir.Dir, id banger.VMID) (Handles, error) {
	found, err := FindProcesses(dir)
	if err != nil {
		return Handles{}, fmt.Errorf("look for processes of vm %s: %w", id, err)
	}
	handles := Handles{Attempt: 1, Ready: true}
	for _, p := range found {
		switch {
		case p.VM != id:
		case p.Supervisor:
			handles.Supervisor = p.Handle
		default:
			handles.VMM = p.Handle
		}
	}
	return handles, nil
}

// worksFor tells what a command line is for.
func worksFor(dir statedir.Dir, argv []string) (Process, bool) {
	p := Process{Program: argv[0][strings.LastIndexByte(argv[0], '/')+1:]}
	var ok bool
	if p.VM, ok = idIn(strings.Join(argv[1:], "\x00"), dir.VMs()+"/"); !ok {
		return p, false
	}
	config := slices.Index(argv, dir.VM(p.VM).MachineConfig())
	p.Supervisor = config > 1 && argv[config-1] == "--config"
	return p, p.Supervisor || p.Program == "banger-machine" || strings.HasPrefix(p.Program, "qemu-system-")
}

// isOwn tells whether a process runs as this user. Who owns its files in /proc is another question: those of a process that is not to be
// looked into are root's.
func isOwn(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/status")
	_, after, found := bytes.Cut(text, []byte("\nUid:\t"))
	uid, _, _ := bytes.Cut(after, []byte("\t"))
	return err == nil && found && string(uid) == strconv.Itoa(unix.Getuid())
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
