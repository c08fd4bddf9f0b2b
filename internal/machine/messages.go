package machine

import (
	"net/netip"
	"syscall"
	"time"

	"banger"
)

// Config is what lifecycle tells banger-machine, as JSON in vms/<id>/machine.json (0600). Paths are absolute.
type Config struct {
	ID           banger.VMID       `json:"id"`
	Name         string            `json:"name"`         // host name of the guest
	Op           string            `json:"op,omitempty"` // the operation that starts the run, for the log
	Dir          string            `json:"dir"`          // the VM's directory: sockets, console ring, records
	Driver       string            `json:"driver"`       // "qemu"
	QEMU         string            `json:"qemu"`         // path of the VMM program
	Accel        string            `json:"accel"`        // "kvm" or "tcg"
	TSCKHz       uint64            `json:"tsc_khz"`      // of the host; used under TCG
	VCPU         int               `json:"vcpu"`
	MemoryMiB    int               `json:"memory_mib"`
	Vmlinux      string            `json:"vmlinux"`
	Initrd       string            `json:"initrd"`
	Base         string            `json:"base"`    // rootfs.ext4, read-only
	Modules      string            `json:"modules"` // modules.ext4, read-only
	Disk         string            `json:"disk"`    // disk.ext4
	Boot         banger.BootKind   `json:"boot"`
	BootDeadline time.Duration     `json:"boot_deadline_ns"` // per attempt; there is one retry
	Env          map[string]string `json:"env,omitempty"`
	User         string            `json:"user,omitempty"`
	Publish      []banger.Publish  `json:"publish,omitempty"`
	PublishAll   bool              `json:"publish_all,omitempty"` // open every port that somebody listens on, unasked
	Locale       banger.Locale     `json:"locale,omitzero"`
	CA           string            `json:"ca,omitempty"`    // PEM
	Net          banger.NetPolicy  `json:"net,omitzero"`    // not given: full
	Peers        string            `json:"peers,omitempty"` // directory of the sockets by which VMs reach each other's ports
}

// Request is the first line a client sends on machine.sock; exactly one field is set. The answer's first line is a
// [Response]; what follows depends on the request.
type Request struct {
	Status   *struct{}           `json:"status,omitempty"`   // → Response.Status
	Ready    *struct{}           `json:"ready,omitempty"`    // waits until the guest is ready or the run has ended → Status
	Init     *struct{}           `json:"init,omitempty"`     // waits until the image's init is up too, at most [InitPatience] after that → Status
	Stats    *struct{}           `json:"stats,omitempty"`    // → Response.Stats
	Wait     *struct{}           `json:"wait,omitempty"`     // waits until the run has ended and exit.json is written → Exit
	Exec     *banger.ExecRequest `json:"exec,omitempty"`     // then frames both ways
	Console  *ConsoleRequest     `json:"console,omitempty"`  // then raw bytes to the client
	Attach   *struct{}           `json:"attach,omitempty"`   // then raw bytes both ways with the console
	Connect  *ConnectRequest     `json:"connect,omitempty"`  // then raw bytes both ways with a port of the guest channel
	Shutdown *ShutdownRequest    `json:"shutdown,omitempty"` // power off, then kill; answers when the run has ended → Exit
	Signal   *SignalRequest      `json:"signal,omitempty"`   // answers when the VMM has been sent it
	Ports    *PortsRequest       `json:"ports,omitempty"`    // → Response.Ports
	SetNet   *SetNetRequest      `json:"set_net,omitempty"`  // answers when the policy holds
	NetLog   *ConsoleRequest     `json:"net_log,omitempty"`  // then lines of [banger.NetEvent] to the client
	Rename   *RenameRequest      `json:"rename,omitempty"`   // answers when the guest has the host name, or will get it when it is ready
}

// ConsoleRequest reads the console ring. A position counts the bytes of all runs of the VM.
type ConsoleRequest struct {
	Follow bool   `json:"follow,omitempty"`
	From   uint64 `json:"from,omitempty"`  // position of the first byte, or of the oldest one that is there
	Lines  int    `json:"lines,omitempty"` // only so many of the last lines that are there already; 0: all
}

// ConsoleAnswer precedes the bytes.
type ConsoleAnswer struct {
	From uint64 `json:"from"` // position of the first
}

// ConnectRequest names a port of the guest channel.
type ConnectRequest struct {
	Port uint32 `json:"port"`
}

// ShutdownRequest ends the run. Timeout 0 kills at once.
type ShutdownRequest struct {
	Timeout time.Duration `json:"timeout_ns"`
}

// SignalRequest sends the VMM a signal. When that ends it, the run was killed.
type SignalRequest struct {
	Signal syscall.Signal `json:"signal"`
}

// SetNetRequest changes what the VM's network reaches. Connections that the policy does not allow end.
type SetNetRequest struct {
	Policy banger.NetPolicy `json:"policy"`
}

// RenameRequest gives the guest another host name.
type RenameRequest struct {
	Name string `json:"name"`
}

// Response is the first line of an answer. Error is set when the request failed; then nothing follows.
type Response struct {
	Error  *banger.ErrorBody `json:"error,omitempty"`
	Status *Status           `json:"status,omitempty"`
	Exit   *banger.Exit      `json:"exit,omitempty"`
	Stats  *Stats            `json:"stats,omitempty"`

	Console *ConsoleAnswer `json:"console,omitempty"`
	Ports   *Ports         `json:"ports,omitempty"`
}

// InitPatience is what the image's init gets to come up, from when the guest is ready.
const InitPatience = 30 * time.Second

// InitStarting is an init that has not come up yet.
const InitStarting = "starting"

// Phase is where a run is.
type Phase string

const (
	PhaseBooting Phase = "booting"
	PhaseReady   Phase = "ready"
	PhaseEnding  Phase = "ending"
	PhaseEnded   Phase = "ended"
)

// Status is a run as its supervisor sees it.
type Status struct {
	Name     string           `json:"name,omitempty"` // host name of the guest
	Net      banger.NetPolicy `json:"net,omitzero"`
	Phase    Phase            `json:"phase"`
	Accel    string           `json:"accel"`             // what is used, after a fallback too
	Attempts int              `json:"attempts"`          // boots tried: 1 or 2
	Timings  []banger.Timing  `json:"timings,omitempty"` // host and guest side, once ready
	BootID   string           `json:"boot_id,omitempty"`
	Init     string           `json:"init,omitempty"`   // of the image's own init, if it is process 1: [InitStarting], then what it says of itself: "running", "degraded"
	Exit     *banger.Exit     `json:"exit,omitempty"`   // once ended
	Address  netip.Addr       `json:"address,omitzero"` // of the VM on the host's loopback
}
