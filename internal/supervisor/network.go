package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/machine"
	"banger/internal/netstack"
	"banger/internal/vmm"
)

// What a guest can make us log is bounded: so many events a second, and so many at once.
const (
	eventsPerSecond = 50
	eventsBurst     = 500
	maxPeers        = 256 // connections of other VMs at one time
)

// network is the VM's network for the whole run.
type network struct {
	stack *netstack.Stack
	ring  *machine.Ring
	log   *slog.Logger

	peers *net.UnixListener // takes connections of other VMs; nil: none

	mu   sync.Mutex // guards the log's measure
	left float64
	last time.Time
	lost int
}

func openNetwork(path string, cfg machine.Config, log *slog.Logger, ended func()) (*network, error) {
	ring, err := machine.OpenRing(path)
	if err != nil {
		return nil, err
	}
	n := &network{ring: ring, log: log, left: eventsBurst, last: time.Now()}
	n.stack = netstack.New(netstack.Config{Policy: cfg.Net.Or(banger.NetFull), Log: n.record, Ended: ended,
		Peer: func(ctx context.Context, vm string, port uint16) (net.Conn, error) {
			return machine.DialPeer(ctx, cfg.Peers, vm, port)
		}})
	return n, nil
}

// setNet changes the policy for this run.
func (r *run) setNet(policy banger.NetPolicy) {
	r.network.stack.SetPolicy(policy)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Net = policy
}

func (n *network) close() {
	if n.peers != nil {
		n.peers.Close()
	}
	n.stack.Close()
	n.ring.Close()
}

// record writes an event to the log. Of too many in a short time the number is kept.
func (n *network) record(e banger.NetEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.left = min(eventsBurst, n.left+now.Sub(n.last).Seconds()*eventsPerSecond)
	n.last = now
	if n.left < 1 {
		n.lost++
		return
	}
	n.left--
	e.Lost, n.lost = n.lost, 0
	line, err := json.Marshal(e)
	if err == nil {
		_, err = n.ring.Write(append(line, '\n'))
	}
	if err != nil {
		n.log.Warn("write the network's log", "err", err)
	}
}

// listen takes connections of other VMs, by the VM's id: whoever gives names leads them here.
func (n *network) listen(dir string, id banger.VMID) {
	if dir == "" {
		return
	}
	listener, err := machine.Listen(machine.PeerSocket(dir, id))
	if err != nil {
		n.log.Warn("listen for other VMs", "err", err)
		return
	}
	listener.SetUnlinkOnClose(true)
	n.peers = listener
	go n.servePeers(listener)
}

func (n *network) servePeers(listener *net.UnixListener) {
	open := make(chan struct{}, maxPeers)
	for {
		conn, err := machine.Accept(listener)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				n.log.Warn("accept another VM", "err", err)
			}
			return
		}
		open <- struct{}{}
		go func() {
			defer func() { <-open }()
			defer conn.Close()
			if err := n.servePeer(conn); err != nil {
				n.log.Debug("serve another VM", "err", err)
			}
		}()
	}
}

func (n *network) servePeer(conn *net.UnixConn) error {
	r := bufio.NewReader(conn)
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	req, err := machine.ReadRequest(r)
	conn.SetReadDeadline(time.Time{})
	if err != nil {
		return err
	}
	if req.Connect == nil || req.Connect.Port == 0 || req.Connect.Port > 65535 {
		return refuse(conn, banger.Invalidf("want a port"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	guest, err := n.stack.DialGuest(ctx, uint16(req.Connect.Port))
	if err != nil {
		return refuse(conn, err)
	}
	defer guest.Close()
	if err := machine.WriteResponse(conn, machine.Response{}); err != nil {
		return err
	}
	join(conn, r, guest)
	return nil
}

// serveNetwork carries the frames of one boot.
func (b *boot) serveNetwork() {
	if err := b.network.stack.Serve(b.machine.Network()); err != nil {
		b.note("the network card's stream ends", "err", escape(err.Error(), maxDetail))
	}
}

// guestNetwork is how the guest sets its card up.
func guestNetwork(id banger.VMID) channel.Network {
	return channel.Network{MAC: vmm.MAC(id).String(), Addresses: []netip.Prefix{netstack.Guest4, netstack.Guest6},
		Gateways: []netip.Addr{netstack.Gateway4, netstack.Gateway6}, DNS: []netip.Addr{netstack.Gateway4}}
}
