package machine

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"syscall"

	"banger"
)

// PortsRequest asks for the guest's listeners. With Open each gets a listener on the VM's own loopback address of the host.
type PortsRequest struct {
	Open bool `json:"open,omitempty"`
}

// Ports is what a guest listens on and how to get there.
type Ports struct {
	Address   netip.Addr `json:"address"`             // of the VM on the host's loopback, leased for the run
	Listeners []Port     `json:"listeners"`           // by port; empty: there is none
	Published []Pin      `json:"published,omitempty"` // pinned ports; absent: none
}

// Port is one listener of the guest. What the guest says is escaped.
type Port struct {
	Port     uint16            `json:"port"`              // TCP
	Address  netip.Addr        `json:"address"`           // in the guest
	Process  string            `json:"process,omitempty"` // what it calls itself; absent: not to be seen
	PID      int               `json:"pid,omitempty"`     // in the guest; absent: not to be seen
	Endpoint netip.AddrPort    `json:"endpoint,omitzero"` // where it can be reached on the host
	Error    *banger.ErrorBody `json:"error,omitempty"`   // why it can't
}

// Pin is a pinned port. Error says why it is not open.
type Pin struct {
	banger.Publish
	Error *banger.ErrorBody `json:"error,omitempty"` // why it is not open; absent: it is
}

// Ports asks for the guest's listeners, once the guest is ready; see [PortsRequest].
func (c Client) Ports(ctx context.Context, open bool) (Ports, error) {
	resp, err := c.answer(ctx, Request{Ports: &PortsRequest{Open: open}})
	if err == nil && resp.Ports == nil {
		err = c.noAnswer()
	}
	if err != nil {
		return Ports{}, err
	}
	return *resp.Ports, nil
}

// ListenError says why at can't be listened on. Errors: ErrConflict when it is taken; ErrRefused when this host keeps it for root;
// ErrInvalid when it is no address of this host.
func ListenError(at netip.AddrPort, err error) error {
	failed := &banger.Error{Kind: banger.ErrUnavailable, Op: "listen on", Subject: at.String(), Err: err}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		failed.Kind, failed.Err = banger.ErrConflict, errors.New("the port is taken")
		failed.Hint = "see who has it: ss -ltnp 'sport = :" + strconv.Itoa(int(at.Port())) + "'"
	case errors.Is(err, syscall.EACCES):
		failed.Kind, failed.Err = banger.ErrRefused, errors.New("this computer keeps low ports for root")
		failed.Hint = "allow it: sudo sysctl net.ipv4.ip_unprivileged_port_start=" + strconv.Itoa(int(at.Port())) + "; or use a port from 1024 on"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		failed.Kind, failed.Err = banger.ErrInvalid, errors.New("it is no address of this computer")
	}
	return failed
}
