package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/dns"
	"banger/internal/entry"
	"banger/internal/machine"
	"banger/internal/statedir"
)

// openTimeout bounds how long the look-up of a name waits for the VM's ports to be opened; resolvers wait five seconds.
const openTimeout = 2 * time.Second

// names is how VMs are found by name from this computer's programs.
type names struct {
	dir statedir.Dir
	// get finds a VM by its name, its id or the beginning of its id.
	get func(ctx context.Context, ref string) (banger.VM, error)
	log *slog.Logger

	dns  *dns.Server  // nil: it could not listen
	http *entry.Entry // likewise
}

// serve begins to answer. What can't be had keeps the daemon from nothing else; status and doctor say so.
func (n *names) serve() {
	var err error
	if n.dns, err = dns.Listen(dns.Config{Lookup: n.address, Log: n.log}, dns.DefaultPort); err != nil {
		n.log.Warn("names of VMs", "err", err)
	}
	if n.http, err = entry.Listen(entry.Config{Find: n.find, Dial: n.dial, Log: n.log}, entry.DefaultPort); err != nil {
		n.log.Warn("HTTP entry", "err", err)
	}
}

func (n *names) close() {
	if n.dns != nil {
		_ = n.dns.Close()
	}
	if n.http != nil {
		_ = n.http.Close()
	}
}

// addresses are where names and the HTTP entry are served; "" for what is not.
func (n *names) addresses() (dns, http string) {
	if n.dns != nil {
		dns = n.dns.Address()
	}
	if n.http != nil {
		http = n.http.Address()
	}
	return dns, http
}

// find finds a running VM by its exact name. Errors: ErrNotFound; ErrConflict.
func (n *names) find(ctx context.Context, name string) (banger.VMID, error) {
	vm, err := n.get(ctx, name)
	if err != nil || vm.Spec.Name != name {
		return "", &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: name, Err: err}
	}
	if vm.State != banger.StateRunning {
		return "", &banger.Error{Kind: banger.ErrConflict, Op: "vm", Subject: name, Err: fmt.Errorf("it is %s", vm.State), Hint: "banger vm start " + name}
	}
	return vm.ID, nil
}

func (n *names) client(id banger.VMID) machine.Client {
	return machine.Client{Socket: n.dir.VM(id).MachineSocket()}
}

// address gives a running VM's address and opens its ports there: who asks for the name is about to connect.
func (n *names) address(ctx context.Context, name string) (netip.Addr, error) {
	id, err := n.find(ctx, name)
	if errors.Is(err, banger.ErrConflict) {
		return netip.Addr{}, &banger.Error{Kind: banger.ErrNotFound, Err: err}
	}
	if err != nil {
		return netip.Addr{}, err
	}
	client := n.client(id)
	status, err := client.Status(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	if !status.Address.IsValid() {
		return netip.Addr{}, &banger.Error{Kind: banger.ErrUnavailable, Op: "vm", Subject: name, Err: errors.New("it has no address here")}
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if _, err := client.Ports(ctx, true); err != nil {
		n.log.DebugContext(ctx, "open the ports of a VM", "vm", name, "err", err)
	}
	return status.Address, nil
}

// dial connects to a port of a VM. The bytes pass through this process, unlike all other streams: one address stands for all VMs, and
// only the daemon knows which there are. A browser makes such a connection again when the daemon has restarted.
func (n *names) dial(ctx context.Context, id banger.VMID, port uint16) (net.Conn, error) {
	conn, err := n.client(id).Connect(ctx, channel.PortDial)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if err := channel.AskDial(conn, port); err != nil {
		conn.Close()
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "connect to", Subject: fmt.Sprintf("port %d of vm %s", port, id), Err: err}
	}
	return conn, nil
}
