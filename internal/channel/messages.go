package channel

import (
	"net/netip"
	"time"

	"banger"
)

// ProtocolVersion is carried by the hello and by [Hello]; both ends refuse another one by name.
const ProtocolVersion = 1

// Ports of the guest channel.
const (
	PortEvents = 1  // guest → host: the ready doorbell, then events; JSON lines both ways
	PortSSH    = 22 // host → guest: the agent's SSH server
	PortDial   = 24 // host → guest: a TCP connection inside the guest, as [DialGuest] has it
	PortListen = 25 // host → guest: the guest's listeners, as one line of JSON
	PortFiles  = 23 // host → guest: one file or tree a connection, as package transfer has it
)

// FromGuest is one line of the events stream from the guest. Exactly one field is set.
type FromGuest struct {
	Hello  *Hello  `json:"hello,omitempty"`  // first line of every stream
	Ready  *Ready  `json:"ready,omitempty"`  // answers each Identify: it is applied and the SSH server answers
	System *System `json:"system,omitempty"` // boot kind system: the image's init has come up, or not
	Going  *Going  `json:"going,omitempty"`  // the guest is about to power off or reboot
}

// ToGuest is one line of the events stream to the guest. Exactly one field is set.
type ToGuest struct {
	Identify *Identify `json:"identify,omitempty"` // may come again at any time: start, rename, restore, fork
	PowerOff *PowerOff `json:"power_off,omitempty"`
}

// Hello opens the events stream.
type Hello struct {
	Version int    `json:"version"`
	BootID  string `json:"boot_id"` // /proc/sys/kernel/random/boot_id
	Kernel  string `json:"kernel"`  // uname -r
}

// Identify tells the guest who it is.
type Identify struct {
	HostName string            `json:"host_name"`
	HostKey  string            `json:"host_key"`       // OpenSSH private key (PEM) of the agent's SSH server
	UserKeys []string          `json:"user_keys"`      // authorized_keys lines that may sign in as any user
	Clock    time.Time         `json:"clock"`          // the host's time when the line was written
	Entropy  []byte            `json:"entropy"`        // 32 bytes for the guest's random number generator
	Env      map[string]string `json:"env,omitempty"`  // for every command
	User     string            `json:"user,omitempty"` // default user; empty: root
	Locale   banger.Locale     `json:"locale,omitzero"`
	CA       string            `json:"ca,omitempty"` // certificates that the guest's programs are to trust, in PEM
	Network  Network           `json:"network,omitzero"`
}

// Network is how a network card of the guest is set up. The zero value leaves the guest's network alone.
type Network struct {
	MAC       string         `json:"mac,omitempty"` // which card
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"` // of the default routes
	DNS       []netip.Addr   `json:"dns,omitempty"`
}

// Ready says that the guest serves. Timings are of the guest's side, from the start of its kernel.
type Ready struct {
	Timings []banger.Timing `json:"timings,omitempty"`
}

// System tells how the image's init came up.
type System struct {
	State string `json:"state"` // "running", "degraded", "maintenance", "stopping"; "timeout" when it did not come up
}

// PowerOff asks the guest to sync and power off.
type PowerOff struct {
	Grace time.Duration `json:"grace_ns"` // for processes between SIGTERM and SIGKILL
}

// Going announces the end of this boot.
type Going struct {
	Reboot bool `json:"reboot,omitempty"`
}
