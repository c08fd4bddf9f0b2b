package banger

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"
)

// VMID is a VM's identity for its whole life: 12 lower-case hexadecimal digits. Paths and scopes are named after it.
type VMID string

var vmIDPattern = Pattern(`^[0-9a-f]{12}$`)

// ParseVMID checks s. Errors: ErrInvalid.
func ParseVMID(s string) (VMID, error) {
	if !vmIDPattern().MatchString(s) {
		return "", Invalidf("vm id %q: want 12 hexadecimal digits", s)
	}
	return VMID(s), nil
}

// VMState is where a VM is in its life. The transitions are in the lifecycle package.
type VMState string

const (
	StateCreating VMState = "creating" // reserved; disk and records are being made
	StateStopped  VMState = "stopped"
	StateStarting VMState = "starting" // VMM launched, the guest is not ready yet
	StateRunning  VMState = "running"
	StateStopping VMState = "stopping"
	StateError    VMState = "error" // LastError tells why; stop, start or delete ends it
)

// Limits of a VM's sizes.
const (
	MinMemoryMiB = 64
	MaxMemoryMiB = 1 << 20
	MinDiskBytes = 64 << 20
	MaxDiskBytes = 16 << 40
	MaxVCPU      = 255
	MinStopIdle  = time.Minute
)

// VMSpec is what a user asks for. The zero value of a field means "not given"; Validate wants them all resolved.
type VMSpec struct {
	Name      string            `json:"name"`                   // 1 to 63 of a-z, 0-9 and "-"; unique among VMs
	Image     string            `json:"image"`                  // image name
	VCPU      int               `json:"vcpu"`                   // 1..255
	MemoryMiB int               `json:"memory_mib"`             // 64..1048576
	DiskBytes int64             `json:"disk_bytes"`             // 64 MiB..16 TiB
	Env       map[string]string `json:"env,omitempty"`          // for every command run in the VM
	User      string            `json:"user,omitempty"`         // default user of shell and exec; empty means root
	Labels    map[string]string `json:"labels,omitempty"`       // the user's own, by key; absent: none
	Publish   []Publish         `json:"publish,omitempty"`      // ports pinned to addresses of the host
	CA        string            `json:"ca,omitempty"`           // certificates, in PEM, that its programs trust beside their own
	Sync      []FileSync        `json:"sync,omitempty"`         // files of the host's user that it has copies of, beside those of the configuration
	Net       NetPolicy         `json:"net,omitzero"`           // of VMs from before there was a network: not given, which is full
	StopIdle  time.Duration     `json:"stop_idle_ns,omitempty"` // stopped when nobody has used it for so long, at least [MinStopIdle]; 0: never
}

var vmNamePattern = Pattern(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// ValidateVMName checks the naming rule: the name becomes a host name, a DNS label and a path. Errors: ErrInvalid.
func ValidateVMName(name string) error {
	if len(name) > 63 || !vmNamePattern().MatchString(name) {
		return &Error{Kind: ErrInvalid, Op: "vm name", Subject: fmt.Sprintf("%q", name),
			Err:  fmt.Errorf("a name has 1 to 63 characters of a-z, 0-9 and '-', and does not begin or end with '-'"),
			Hint: "for example: --name devbox"}
	}
	return nil
}

var envNamePattern = Pattern(`^[A-Za-z_][A-Za-z0-9_]*$`)
var labelPattern = Pattern(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$`)

// Validate checks every field and names the first bad one. Errors: ErrInvalid.
func (s VMSpec) Validate() error {
	if err := ValidateVMName(s.Name); err != nil {
		return err
	}
	switch {
	case s.Image == "":
		return Invalidf("image: no name given")
	case s.VCPU < 1 || s.VCPU > MaxVCPU:
		return Invalidf("vcpu %d: want 1 to %d", s.VCPU, MaxVCPU)
	case s.MemoryMiB < MinMemoryMiB || s.MemoryMiB > MaxMemoryMiB:
		return Invalidf("memory %d MiB: want %d to %d MiB", s.MemoryMiB, MinMemoryMiB, MaxMemoryMiB)
	case s.DiskBytes < MinDiskBytes || s.DiskBytes > MaxDiskBytes:
		return Invalidf("disk size %s: want %s to %s", FormatSize(s.DiskBytes), FormatSize(MinDiskBytes), FormatSize(MaxDiskBytes))
	case s.StopIdle != 0 && s.StopIdle < MinStopIdle:
		return Invalidf("stop when idle for %s: want at least %s", s.StopIdle, MinStopIdle)
	}
	if err := errors.Join(validatePublish(s.Publish), ValidateCA(s.CA)); err != nil {
		return err
	}
	for _, name := range sortedKeys(s.Env) {
		if err := ValidateEnv(name, s.Env[name]); err != nil {
			return err
		}
	}
	for _, key := range sortedKeys(s.Labels) {
		if !labelPattern().MatchString(key) || len(s.Labels[key]) > 253 {
			return Invalidf("label %q: a key has 1 to 63 letters, digits, '.', '_', '-' or '/', a value at most 253 bytes", key)
		}
	}
	return nil
}

// ValidateEnv checks one environment variable. Errors: ErrInvalid.
func ValidateEnv(name, value string) error {
	if !envNamePattern().MatchString(name) {
		return Invalidf("environment variable %q: a name has letters, digits and '_' and does not begin with a digit", name)
	}
	if strings.ContainsRune(value, 0) {
		return Invalidf("environment variable %q: the value has a NUL byte", name)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// VM is the record of one VM.
type VM struct {
	ID         VMID        `json:"id"`                    // 12 hexadecimal digits, for the VM's whole life
	Spec       VMSpec      `json:"spec"`                  // of the run, while there is one
	Pending    *SpecChange `json:"pending,omitempty"`     // what the next start changes
	State      VMState     `json:"state"`                 // "creating", "stopped", "starting", "running", "stopping" or "error"
	LastError  string      `json:"last_error,omitempty"`  // for people: why it is in state "error", or could not be deleted when its time came; absent: nothing is wrong
	ImageKey   string      `json:"image_key"`             // the immutable base this VM's overlay lies on
	Kernel     string      `json:"kernel"`                // kernel name
	Accel      string      `json:"accel,omitempty"`       // "kvm" or "tcg" of the last start
	Boots      int         `json:"boots"`                 // successful starts
	Remove     bool        `json:"remove,omitempty"`      // --rm: deleted when its lease ends
	CreatedAt  time.Time   `json:"created_at"`            // when it was asked for
	StartedAt  time.Time   `json:"started_at,omitzero"`   // last time it became running
	StoppedAt  time.Time   `json:"stopped_at,omitzero"`   // when its last run that ended did; absent: none has
	StopReason string      `json:"stop_reason,omitempty"` // while it is being stopped and nobody asked for that: why
	Exit       *Exit       `json:"exit,omitempty"`        // how the last run ended; nil while running

	Synced     []FileSync  `json:"synced,omitempty"`     // what was brought up to date last: those of the configuration, then its own
	Workspaces []Workspace `json:"workspaces,omitempty"` // what went in from the host, one for each place

	ExpiresAt   time.Time `json:"expires_at,omitzero"`    // --ttl: the daemon stops and deletes it then
	ExpiresHost *HostTime `json:"expires_host,omitempty"` // the same moment by the clock of the host's boot in which it was set
}

// HostTime is a moment by the clock of one boot of the host: it goes on while the host sleeps, and nobody can set it.
type HostTime struct {
	BootID    string        `json:"boot_id"`       // of that boot: /proc/sys/kernel/random/boot_id
	SinceBoot time.Duration `json:"since_boot_ns"` // CLOCK_BOOTTIME at that moment
}

// ExitCause says how a VM's run ended.
type ExitCause string

const (
	ExitPowerOff ExitCause = "power-off" // the guest powered itself off, asked or not
	ExitReboot   ExitCause = "reboot"
	ExitPanic    ExitCause = "panic"     // guest kernel panic
	ExitKilled   ExitCause = "killed"    // banger killed the VMM: kill, or stop past its deadline
	ExitCrash    ExitCause = "vmm-crash" // the VMM died by itself or by someone else's signal
	ExitNoBoot   ExitCause = "no-boot"   // the guest was not ready within the boot deadline
	ExitUnknown  ExitCause = "unknown"   // VMM and supervisor died together
)

// Exit is the record of a run's end.
type Exit struct {
	Cause   ExitCause `json:"cause"`             // "power-off", "reboot", "panic", "killed", "vmm-crash", "no-boot" or "unknown"
	Detail  string    `json:"detail,omitempty"`  // one line for people
	Console string    `json:"console,omitempty"` // the console's last lines, control characters escaped
	At      time.Time `json:"at"`                // when the end was seen
}
