package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/channel"
	"banger/internal/listening"
	"banger/internal/machine"
)

const (
	// maxCarried is how many connections of the host's ports go on at a time: the channel's other streams must have room.
	maxCarried = 200
	// maxOpen is how many ports a guest can make us open.
	maxOpen = 256
	// maxListing bounds what a guest says about its listeners.
	maxListing  = 1 << 20
	listTimeout = 10 * time.Second
	dialTimeout = 30 * time.Second
	// publishInterval is how often the guest is asked when all its ports are to be open.
	publishInterval = 2 * time.Second
	// leasePort is bound, and never listened on, on the address that a run has leased.
	leasePort     = 42088
	leaseAttempts = 1000
)

// ports leads connections to addresses of the host into the guest. The bytes take the channel: the guest needs no network card.
type ports struct {
	sock string // guest.sock
	// ready waits until there is a guest to connect to.
	ready func(ctx context.Context) error
	// streaming counts a connection until ended is called.
	streaming func() (ended func())
	log       *slog.Logger
	slots     chan struct{}

	mu      sync.Mutex
	address netip.Addr // invalid: none could be leased
	lease   int        // descriptor that holds the address; -1 for none
	open    map[uint16]*net.TCPListener
	pins    []machine.Pin
	pinned  []*net.TCPListener
	closed  bool
}

func newPorts(sock string, ready func(context.Context) error, streaming func() func(), log *slog.Logger) *ports {
	return &ports{sock: sock, ready: ready, streaming: streaming, log: log, slots: make(chan struct{}, maxCarried), lease: -1, open: map[uint16]*net.TCPListener{}}
}

// begin leases the address and opens the pinned ports. What can't be had is told to who asks.
func (p *ports) begin(id banger.VMID, publish []banger.Publish) netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	if p.address, p.lease, err = leaseAddress(id); err != nil {
		p.log.Warn("lease an address on the loopback", "err", err)
	}
	for _, want := range publish {
		pin := machine.Pin{Publish: want}
		l, err := p.listen(want.Host, want.Guest)
		if err != nil {
			body := banger.EncodeError(err, "")
			pin.Error = &body
			p.log.Warn("publish", "port", want.String(), "err", err)
		} else {
			p.pinned = append(p.pinned, l)
		}
		p.pins = append(p.pins, pin)
	}
	return p.address
}

func (p *ports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, l := range p.open {
		l.Close()
	}
	for _, l := range p.pinned {
		l.Close()
	}
	if p.lease >= 0 {
		unix.Close(p.lease)
		p.lease = -1
	}
}

// leaseAddress takes 127.88.x.y for a run: by the VM's id, so that it is nearly always the same one. Nobody else can have it while the
// descriptor is open: its bind is exclusive.
func leaseAddress(id banger.VMID) (netip.Addr, int, error) {
	hash := fnv.New32a()
	hash.Write([]byte(id))
	var err error
	for n := range uint32(leaseAttempts) {
		h := hash.Sum32() + n
		address := [4]byte{127, 88, byte(h >> 8), byte(h)}
		if address[3] == 0 || address[3] == 255 {
			continue
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return netip.Addr{}, -1, err
		}
		if err = unix.Bind(fd, &unix.SockaddrInet4{Port: leasePort, Addr: address}); err == nil {
			return netip.AddrFrom4(address), fd, nil
		}
		unix.Close(fd)
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return netip.Addr{}, -1, fmt.Errorf("bind: %w", err)
}

// listen opens an address of the host for a port of the guest. Errors: ErrConflict when it is taken; ErrRefused when this host keeps
// it for root.
func (p *ports) listen(at netip.AddrPort, guest uint16) (*net.TCPListener, error) {
	network := "tcp4"
	if at.Addr().Is6() {
		network = "tcp6"
	}
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, machine.ListenError(at, err)
	}
	go p.accept(l, guest)
	return l, nil
}

func (p *ports) accept(l *net.TCPListener, guest uint16) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors
			time.Sleep(streamPause)
			continue
		}
		select {
		case p.slots <- struct{}{}:
		default:
			reset(conn)
			continue
		}
		go func() {
			defer func() { <-p.slots }()
			p.carry(conn, guest)
		}()
	}
}

// carry joins a connection with the guest's port. One that can't be had looks to the client as if nobody had listened.
func (p *ports) carry(conn *net.TCPConn, guest uint16) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	err := p.ready(ctx)
	var to net.Conn
	if err == nil {
		to, err = channel.DialGuest(ctx, p.sock, guest)
	}
	if err != nil {
		reset(conn)
		return
	}
	defer to.Close()
	defer p.streaming()()
	channel.Join(to, conn, conn)
}

func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

// list asks the guest who listens, and opens a port for each when that is wanted.
func (p *ports) list(ctx context.Context, open bool) (machine.Ports, error) {
	if err := p.ready(ctx); err != nil {
		return machine.Ports{}, err
	}
	listeners, err := askListeners(ctx, p.sock)
	if err != nil {
		return machine.Ports{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := machine.Ports{Address: p.address, Listeners: []machine.Port{}, Published: slices.Clone(p.pins)}
	failed := map[uint16]*banger.ErrorBody{}
	if open && p.address.IsValid() && !p.closed {
		failed = p.openAll(listeners)
	}
	for _, l := range listeners {
		port := machine.Port{Port: l.Port, Address: l.Address, Process: escape(l.Process, maxName), PID: l.PID, Error: failed[l.Port]}
		if p.open[l.Port] != nil {
			port.Endpoint = netip.AddrPortFrom(p.address, l.Port)
		}
		answer.Listeners = append(answer.Listeners, port)
	}
	return answer, nil
}

// keepOpen opens what the guest listens on, at each tick, until ctx ends.
func (p *ports) keepOpen(ctx context.Context, tick <-chan time.Time) {
	for {
		if _, err := p.list(ctx, true); err != nil && ctx.Err() == nil {
			p.log.Debug("open all ports", "err", err)
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
	}
}

// openAll brings the open ports in step with the guest's listeners; connections that go on are left alone. mu is held.
func (p *ports) openAll(listeners []listening.Listener) (failed map[uint16]*banger.ErrorBody) {
	failed = map[uint16]*banger.ErrorBody{}
	wanted := map[uint16]bool{}
	for _, l := range listeners {
		wanted[l.Port] = true
	}
	for port, l := range p.open {
		if !wanted[port] {
			l.Close()
			delete(p.open, port)
		}
	}
	for port := range wanted {
		if p.open[port] != nil {
			continue
		}
		err := error(banger.Invalidf("more than %d ports", maxOpen))
		if len(p.open) < maxOpen {
			var l *net.TCPListener
			if l, err = p.listen(netip.AddrPortFrom(p.address, port), port); err == nil {
				p.open[port] = l
				continue
			}
		}
		body := banger.EncodeError(err, "")
		failed[port] = &body
	}
	return failed
}

// askListeners reads the guest's answer; what does not hold is left out.
func askListeners(ctx context.Context, sock string) ([]listening.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	conn, err := channel.Dial(ctx, sock, channel.PortListen)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	line, err := bufio.NewReaderSize(conn, maxListing).ReadSlice('\n')
	var list []listening.Listener
	if err == nil {
		list, err = parseListeners(line)
	}
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "ask the guest for its ports", Err: err}
	}
	return list, nil
}

func parseListeners(line []byte) ([]listening.Listener, error) {
	var list []listening.Listener
	if err := json.Unmarshal(line, &list); err != nil {
		return nil, err
	}
	list = list[:min(len(list), listening.MaxListeners)]
	return slices.DeleteFunc(list, func(l listening.Listener) bool { return !l.Address.IsValid() || l.Address.Zone() != "" || l.Port == 0 }), nil
}
