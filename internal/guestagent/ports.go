package guestagent

import (
	"cmp"
	"encoding/json"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"banger/internal/channel"
	"banger/internal/listening"
)

// listenersFresh is how long an answer holds: who asks often makes no work.
const listenersFresh = time.Second

// listeners looks at who listens, when it is asked and not too often.
type listeners struct {
	mu   sync.Mutex
	last []listening.Listener
	at   time.Time
}

func (l *listeners) list() ([]listening.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() && time.Since(l.at) < listenersFresh {
		return l.last, nil
	}
	list, err := listening.List("/proc")
	if err == nil {
		l.last, l.at = list, time.Now()
	}
	return list, err
}

// ServeListeners answers with one line.
func (s *Server) ServeListeners(conn net.Conn) {
	list, err := s.listeners.list()
	if err != nil {
		logf("listeners: %v", err)
		return
	}
	if line, err := json.Marshal(list); err == nil {
		conn.Write(append(line, '\n'))
	}
}

// ServeDial connects a stream with a TCP port of the guest.
func (s *Server) ServeDial(conn net.Conn) { channel.ServeDial(conn, s.dialPort) }

// dialPort tries the loopback addresses, then the one that somebody listens on.
func (s *Server) dialPort(port uint16) (net.Conn, error) {
	var refused error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))), forwardTimeout)
		if err == nil {
			return conn, nil
		}
		refused = cmp.Or(refused, err)
	}
	list, _ := s.listeners.list()
	for _, l := range list {
		if l.Port == port && !l.Address.IsUnspecified() && !l.Address.IsLoopback() {
			return net.DialTimeout("tcp", netip.AddrPortFrom(l.Address, port).String(), forwardTimeout)
		}
	}
	return nil, refused
}
