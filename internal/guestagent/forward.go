package guestagent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Channels and requests of forwarding (RFC 4254 section 7; PROTOCOL of OpenSSH for unix sockets).
const (
	directTCP     = "direct-tcpip"
	directUnix    = "direct-streamlocal@openssh.com"
	forwardedTCP  = "forwarded-tcpip"
	forwardedUnix = "forwarded-streamlocal@openssh.com"
	forwardTCP    = "tcpip-forward"
	forwardUnix   = "streamlocal-forward@openssh.com"
	cancelTCP     = "cancel-tcpip-forward"
	cancelUnix    = "cancel-streamlocal-forward@openssh.com"
)

const (
	forwardTimeout = 30 * time.Second // for a connection inside the guest
	drainTimeout   = 10 * time.Minute // for what has arrived from a client that is done, and nobody in the guest reads
	maxForwards    = 64               // listeners of one connection
)

// Payloads of forwarding. The client's own end is told and means nothing here.
type (
	tcpPayload struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	directUnixPayload struct {
		Path     string
		Reserved string
		Number   uint32
	}
	listenPayload struct {
		Host string
		Port uint32
	}
	unixPayload          struct{ Path string }
	forwardedUnixPayload struct{ Path, Reserved string }
)

// target is an address inside the guest.
type target struct{ network, address string }

// tcpTarget refuses what is no port.
func tcpTarget(host string, port uint32) (target, bool) {
	return target{"tcp", net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))}, port <= 65535
}

// parseDirect reads what the opening of a channel wants to reach.
func parseDirect(channelType string, payload []byte) (target, bool) {
	if channelType == directTCP {
		var p tcpPayload
		if ssh.Unmarshal(payload, &p) != nil || p.Port == 0 {
			return target{}, false
		}
		return tcpTarget(p.Host, p.Port)
	}
	var p directUnixPayload
	if ssh.Unmarshal(payload, &p) != nil || p.Path == "" || hasNUL(p.Path) {
		return target{}, false
	}
	return target{"unix", p.Path}, true
}

// serveDirect connects a channel to an address inside the guest.
func serveDirect(newChan ssh.NewChannel) {
	to, ok := parseDirect(newChan.ChannelType(), newChan.ExtraData())
	if !ok {
		newChan.Reject(ssh.ConnectionFailed, "malformed address")
		return
	}
	conn, err := net.DialTimeout(to.network, to.address, forwardTimeout)
	if err != nil {
		newChan.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ch, reqs, err := newChan.Accept()
	if err != nil {
		conn.Close()
		return
	}
	join(ch, reqs, conn)
}

// join copies both ways until both directions have ended or one end is gone. It closes both.
func join(ch ssh.Channel, reqs <-chan *ssh.Request, conn net.Conn) {
	defer ch.Close()
	defer conn.Close()
	go func() {
		ssh.DiscardRequests(reqs) // until the channel is closed: what it still holds goes to conn
		conn.SetReadDeadline(time.Unix(1, 0))
		conn.SetWriteDeadline(time.Now().Add(drainTimeout))
	}()
	var in sync.WaitGroup
	in.Go(func() {
		io.Copy(conn, ch)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	})
	if _, err := io.Copy(ch, conn); err != nil { // one end is gone
		ch.Close()
	}
	ch.CloseWrite()
	in.Wait()
}

// forwards are the listeners in the guest that a client asked for.
type forwards struct {
	mu     sync.Mutex
	open   map[target]net.Listener
	closed bool
}

var errForwards = errors.New("too many forwards, or one of that address")

// add keeps a listener until it is removed or the connection ends.
func (f *forwards) add(at target, l net.Listener) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.open) >= maxForwards || f.open[at] != nil {
		return errForwards
	}
	if f.open == nil {
		f.open = map[target]net.Listener{}
	}
	f.open[at] = l
	return nil
}

func (f *forwards) remove(at target) bool {
	f.mu.Lock()
	l := f.open[at]
	delete(f.open, at)
	f.mu.Unlock()
	return l != nil && l.Close() == nil
}

func (f *forwards) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, l := range f.open {
		l.Close()
	}
}

// serveGlobal answers what a client asks of the connection as a whole.
func (c *connection) serveGlobal(reqs <-chan *ssh.Request) {
	for req := range reqs {
		var ok bool
		var answer []byte
		switch req.Type {
		case forwardTCP, forwardUnix:
			answer, ok = c.forward(req.Type, req.Payload)
		case cancelTCP, cancelUnix:
			at, parsed := parseForward(req.Type, req.Payload)
			ok = parsed && c.forwards.remove(at)
		}
		if req.WantReply {
			req.Reply(ok, answer)
		}
	}
}

// parseForward reads where a client wants its forward to listen, or to listen no more.
func parseForward(request string, payload []byte) (target, bool) {
	if request == forwardTCP || request == cancelTCP {
		var p listenPayload
		if ssh.Unmarshal(payload, &p) != nil {
			return target{}, false
		}
		return tcpTarget(p.Host, p.Port)
	}
	var p unixPayload
	if ssh.Unmarshal(payload, &p) != nil || p.Path == "" || hasNUL(p.Path) {
		return target{}, false
	}
	return target{"unix", p.Path}, true
}

// forward listens in the guest for the client. The answer names a port that the client left open.
func (c *connection) forward(request string, payload []byte) (answer []byte, ok bool) {
	at, ok := parseForward(request, payload)
	if !ok {
		return nil, false
	}
	l, err := c.listen(at)
	if err != nil {
		return nil, false
	}
	kind, opening := forwardedUnix, ssh.Marshal(forwardedUnixPayload{Path: at.address})
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		host, port, _ := net.SplitHostPort(at.address)
		if port == "0" {
			answer = ssh.Marshal(struct{ Port uint32 }{uint32(tcp.Port)})
			at.address = net.JoinHostPort(host, strconv.Itoa(tcp.Port))
		}
		kind, opening = forwardedTCP, ssh.Marshal(tcpPayload{Host: host, Port: uint32(tcp.Port), OriginHost: "127.0.0.1"})
	}
	if err := c.forwards.add(at, l); err != nil {
		l.Close()
		return nil, false
	}
	go c.acceptFor(l, kind, opening)
	return answer, true
}

// listen makes a socket of the user who signed in. "localhost" is the loopback, an empty host all addresses (RFC 4254 section 7.1).
func (c *connection) listen(at target) (net.Listener, error) {
	if at.network != "unix" {
		return net.Listen(at.network, at.address)
	}
	acct, err := c.accounts.find(c.user)
	if err != nil {
		return nil, err
	}
	return listenUnix(at.address, acct)
}

// listenUnix makes a socket that only acct can connect to.
func listenUnix(path string, acct account) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	err = os.Chmod(path, 0o600)
	if err == nil && os.Getuid() == 0 {
		err = os.Lchown(path, int(acct.UID), int(acct.GID))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// acceptFor leads each connection to l to the client, by a channel of that kind, until l is closed.
func (c *connection) acceptFor(l net.Listener, kind string, opening []byte) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if !c.channels.take() {
			conn.Close()
			continue
		}
		go func() {
			defer c.channels.release()
			ch, reqs, err := c.ssh.OpenChannel(kind, opening)
			if err != nil {
				conn.Close()
				return
			}
			join(ch, reqs, conn)
		}()
	}
}

// Forwarding of a key agent, as OpenSSH does it.
const (
	agentRequest = "auth-agent-req@openssh.com"
	agentChannel = "auth-agent@openssh.com"
	agentEnv     = "SSH_AUTH_SOCK"
)

// lendAgent makes a socket of acct that leads to the client's key agent until end is called.
func (c *connection) lendAgent(acct account) (path string, end func(), err error) {
	dir, err := os.MkdirTemp("/tmp", "banger-agent-")
	if err != nil {
		return "", nil, fmt.Errorf("forward the key agent: %w", err)
	}
	path = dir + "/agent.sock"
	l, err := listenUnix(path, acct)
	if err == nil && os.Getuid() == 0 {
		err = os.Lchown(dir, int(acct.UID), int(acct.GID))
	}
	end = func() {
		if l != nil {
			l.Close()
		}
		os.RemoveAll(dir)
	}
	if err != nil {
		end()
		return "", nil, fmt.Errorf("forward the key agent: %w", err)
	}
	go c.acceptFor(l, agentChannel, nil)
	return path, end, nil
}
