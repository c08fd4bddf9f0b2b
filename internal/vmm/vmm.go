// Package vmm is the contract between banger and a virtual machine monitor.
//
// A driver turns a [Spec] into a running [Machine]. What every driver promises is tested by vmm/vmmtest: build a
// driver, run the suite. Helpers that drivers share are here too and are pure.
package vmm

import (
	"context"
	"encoding/hex"
	"io"
	"net"

	"banger"
	"banger/internal/proc"
)

// Accelerator is how guest code runs.
type Accelerator string

const (
	KVM Accelerator = "kvm"
	TCG Accelerator = "tcg" // emulation: slow, works everywhere
)

// Spec is everything a driver needs to start one machine. Paths are absolute.
type Spec struct {
	ID        banger.VMID
	Dir       string // the VM's directory: the driver's sockets live here
	Program   string // the VMM's executable
	Accel     Accelerator
	TSCKHz    uint64 // the host's time stamp counter; a TCG guest needs it (boots hang at random without)
	VCPU      int
	MemoryMiB int
	Kernel    string // uncompressed ELF vmlinux
	Initrd    string
	BootArgs  []string // appended to what the driver itself needs
	Drives    []Drive
	MTU       int // of the network card
}

// MAC is the address of a VM's network card.
func MAC(id banger.VMID) net.HardwareAddr {
	mac := net.HardwareAddr{0x52, 0x54, 0x00, 0, 0, 0} // the block of QEMU and KVM
	if b, err := hex.DecodeString(string(id)); err == nil && len(b) >= 3 {
		copy(mac[3:], b[len(b)-3:])
	}
	return mac
}

// Drive is one disk of a machine: a raw file.
type Drive struct {
	Serial   string // how the guest finds it, at most 20 bytes
	Path     string
	ReadOnly bool
}

// Driver starts machines of one kind of VMM. It is safe for concurrent use.
type Driver interface {
	// Name is "qemu", "firecracker" or "memory".
	Name() string

	// Start launches the VMM, confined to the files of spec, and returns when its sockets are connected; the guest is
	// booting then. The context bounds Start only: the machine outlives it. On error nothing is left running.
	// Started is called with the process's handle as soon as it exists and before the guest runs; its error ends Start.
	Start(ctx context.Context, spec Spec, started func(proc.Handle) error) (Machine, error)

	// Attach takes over a running VMM whose supervisor died. Errors: ErrNotFound when that process is gone.
	Attach(ctx context.Context, spec Spec, vmm proc.Handle) (Machine, error)
}

// Machine is a started VMM. Its methods may be called concurrently and after the end.
//
// From the time Start returns until the end, guest.sock in the VM's directory leads to the guest's ports by Firecracker's
// vsock convention ("CONNECT <port>\n", answered "OK <port>\n"), and connections from the guest reach guest.sock_<port>.
type Machine interface {
	// Console is what the guest wrote to its serial console since the start or the attach. One reader; it must be read
	// all the time or the guest blocks. It ends with io.EOF when the VMM is gone. What is written to it the guest reads as typed;
	// a guest that does not read may block the writer.
	Console() io.ReadWriter

	// Network is the stream of the network card's Ethernet frames, each with its length before it (32 bits, big endian). The
	// guest may send more than is read. It ends with the machine; to close it early is to pull the plug.
	Network() net.Conn

	// PowerButton presses the machine's power button; the guest may ignore it.
	PowerButton(ctx context.Context) error

	// Kill ends the VMM at once and returns when the process is gone.
	Kill(ctx context.Context) error

	// Wait blocks until the VMM process is gone and says why. Every call gives the same answer.
	Wait() Exit
}

// Exit is how a machine ended. Cause is ExitKilled after Kill, ExitCrash when the VMM died unasked.
type Exit struct {
	Cause  banger.ExitCause
	Detail string // one line for people: exit status or signal of the VMM, its last words
}
