package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"banger"
)

const (
	dialTimeout = 30 * time.Second
	// tryTimeout is what one of several addresses of a name gets.
	tryTimeout = 8 * time.Second
)

// refusal is a denial that came to light while connecting.
type refusal struct{ reason string }

func (r refusal) Error() string { return r.reason }

// open connects to where a flow goes, if the policy lets it. A policy that changes meanwhile counts: the flow has begun, so either
// the change finds it or it finds the change.
func (s *Stack) open(f *flow) (net.Conn, error) {
	if v := s.first(s.policy.Load(), f.target); !v.Allowed {
		return nil, refusal{v.Reason}
	}
	conn, err := s.dial(f)
	if err != nil {
		return nil, err
	}
	if v := s.verdict(s.policy.Load(), f.target); !v.Allowed {
		conn.Close()
		return nil, refusal{v.Reason}
	}
	return conn, nil
}

// dial connects to where a flow goes; the policy has allowed it as far as [Stack.first] knows.
func (s *Stack) dial(f *flow) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	defer cancel()
	switch {
	case f.addr == Gateway4 || f.addr == Gateway6:
		return s.dialAny(ctx, f, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()})
	case f.bound && isVMName(f.name):
		if f.proto != "tcp" || s.cfg.Peer == nil {
			return nil, refusal{"other VMs are reached by TCP only"}
		}
		return s.cfg.Peer(ctx, vmOf(f.name), f.port)
	case !f.bound:
		return s.dialAny(ctx, f, []netip.Addr{f.addr})
	}
	addrs, err := s.resolve(ctx, f.name)
	if err != nil {
		return nil, err
	}
	host, err := s.host.Get()
	if err != nil {
		return nil, err
	}
	policy, reason := s.policy.Load(), ""
	var reachable []netip.Addr
	for _, addr := range addrs {
		if v := policy.Resolved(addr, f.port, host); v.Allowed {
			reachable = append(reachable, addr)
		} else {
			reason = v.Reason
		}
	}
	if len(reachable) == 0 {
		return nil, refusal{reason}
	}
	return s.dialAny(ctx, f, reachable)
}

// dialAny connects to the first address that answers.
func (s *Stack) dialAny(ctx context.Context, f *flow, addrs []netip.Addr) (net.Conn, error) {
	var errs []error
	for i, addr := range addrs {
		d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount}}
		if i+1 < len(addrs) {
			d.Timeout = tryTimeout
		}
		conn, err := d.DialContext(ctx, f.proto, net.JoinHostPort(addr.Unmap().String(), strconv.Itoa(int(f.port))))
		if err == nil {
			if f.addr != Gateway4 && f.addr != Gateway6 {
				s.flows.connected(f, addr.Unmap())
			}
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// why says in short words what a failed connection met.
func why(err error) string {
	var dns *banger.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no route"
	case errors.As(err, &dns):
		return err.Error()
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "no answer"
	}
	return fmt.Sprintf("%.200v", err)
}
