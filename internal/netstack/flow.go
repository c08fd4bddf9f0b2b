package netstack

import (
	"cmp"
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"banger"
	"banger/internal/egress"
)

// target is where a connection goes, as far as it is known.
type target struct {
	proto   string
	addr    netip.Addr // what the guest sent it to
	port    uint16
	name    string     // what it asked the resolver for; of an address without a rule only for the log
	bound   bool       // the address stands for the name
	reached netip.Addr // where it really goes, once it is connected
}

// target finds out what a guest means by an address.
func (s *Stack) target(proto string, addr netip.Addr, port uint16) target {
	name, bound := s.names.lookup(addr)
	return target{proto: proto, addr: addr, port: port, name: name, bound: bound}
}

// first judges what can be judged before names are resolved.
func (s *Stack) first(p *egress.Policy, t target) egress.Verdict {
	switch {
	case t.addr == Gateway4 || t.addr == Gateway6:
		return p.HostPort(t.port)
	case t.bound && isVMName(t.name):
		return p.VM(vmOf(t.name), t.port)
	case t.bound:
		return p.Name(t.name, t.port)
	case namePool.Contains(t.addr):
		return egress.Verdict{Reason: "no name stands behind this address any more"}
	}
	host, err := s.host.Get()
	if err != nil {
		return egress.Verdict{Reason: err.Error()}
	}
	return p.Addr(t.addr, t.port, host)
}

// event is what the log gets of a target.
func (t target) event(verdict, reason string) banger.NetEvent {
	addr := t.addr
	if t.bound {
		addr = t.reached
	}
	e := banger.NetEvent{Time: time.Now().UTC(), Verdict: verdict, Proto: t.proto, Name: t.name, Port: t.port, Reason: reason}
	if addr.IsValid() {
		e.Addr = addr.String()
	}
	if t.addr == Gateway4 || t.addr == Gateway6 {
		e.Name = cmp.Or(e.Name, egress.HostName)
	}
	return e
}

// flow is one connection while it is carried.
type flow struct {
	target
	begun    time.Time
	crowded  bool         // it began when there were many
	sent     atomic.Int64 // by the guest
	received atomic.Int64
	reason   atomic.Pointer[string] // why it was cut
	ctx      context.Context        // ends when it is cut
	cancel   context.CancelFunc
}

// cut ends the flow, for a reason of ours.
func (f *flow) cut(reason string) {
	f.reason.CompareAndSwap(nil, &reason)
	f.cancel()
}

// flows are all connections of a Stack.
type flows struct {
	ended func()

	sent, received atomic.Int64 // by the guest, in all of them up to now

	mu       sync.Mutex
	open     map[*flow]bool
	tcp, udp int
}

// begin adds a flow; nil when there are too many.
func (fs *flows) begin(life context.Context, t target) *flow {
	f := &flow{target: t, begun: time.Now()}
	f.ctx, f.cancel = context.WithCancel(life)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	count, limit := fs.counter(t)
	if *count >= limit {
		f.cancel()
		return nil
	}
	f.crowded = *count >= manyFlows
	*count++
	fs.open[f] = true
	return f
}

func (fs *flows) counter(t target) (count *int, limit int) {
	if t.proto == "udp" {
		return &fs.udp, maxUDP
	}
	return &fs.tcp, maxTCP
}

func (fs *flows) end(f *flow) {
	defer fs.ended()
	f.cancel()
	fs.mu.Lock()
	defer fs.mu.Unlock()
	count, _ := fs.counter(f.target)
	*count--
	delete(fs.open, f)
}

func (fs *flows) count() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.open)
}

func (fs *flows) tcpCount() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.tcp
}

// connected says where a flow goes.
func (fs *flows) connected(f *flow, reached netip.Addr) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.reached = reached
}

// judge cuts the flows that are not allowed.
func (fs *flows) judge(allowed func(target) bool) {
	fs.mu.Lock()
	targets := make(map[*flow]target, len(fs.open))
	for f := range fs.open {
		targets[f] = f.target
	}
	fs.mu.Unlock()
	for f, t := range targets {
		if !allowed(t) {
			f.cut("the policy changed")
		}
	}
}

func (fs *flows) closeAll() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for f := range fs.open {
		f.cut("the network card is gone")
	}
}

// tell logs the end of a flow that was carried.
func (s *Stack) tell(f *flow) {
	e := f.event(banger.NetClosed, "")
	if reason := f.reason.Load(); reason != nil {
		e.Reason = *reason
	}
	e.Sent, e.Received, e.Elapsed = f.sent.Load(), f.received.Load(), time.Since(f.begun)
	s.cfg.Log(e)
}
