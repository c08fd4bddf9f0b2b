package guestagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/channel"
)

const (
	signInTimeout   = time.Minute
	maxChannels     = 128 // of one connection
	maxConnections  = 64
	maxEnvRequests  = 256
	maxEnvBytes     = 256 << 10
	maxPending      = 64 // requests of one channel before its command starts
	execChannel     = "exec@banger"
	resultRequest   = "result@banger"
	serverVersion   = "SSH-2.0-banger"
	sessionChannel  = "session"
	maxTerminalName = 128
)

// connection is one client that has signed in.
type connection struct {
	*Server
	ssh      ssh.Conn
	user     string
	channels slots // of both ends
	forwards forwards
}

// slots counts what is bounded.
type slots struct {
	used  atomic.Int32
	limit int32
}

func (s *slots) take() bool {
	if s.used.Add(1) <= s.limit {
		return true
	}
	s.release()
	return false
}

func (s *slots) release() { s.used.Add(-1) }

// Server signs users in and runs their commands. Its identity may be replaced at any time; connections keep what they
// began with.
type Server struct {
	children *children
	accounts accounts
	slots    chan struct{}

	listeners listeners

	transfers chan struct{}
	spare     spare
	syncing   sync.Mutex

	mu       sync.Mutex
	config   *ssh.ServerConfig // nil before the first identity
	env      map[string]string
	user     string
	identity chan struct{} // closed at the first identity
}

// NewServer makes a server that has no identity yet and serves nobody. With init it is process 1 and reaps every process.
func NewServer(init bool) *Server {
	return &Server{children: newChildren(init), accounts: accounts{passwdFile, groupFile}, slots: make(chan struct{}, maxConnections),
		transfers: make(chan struct{}, maxTransfers), identity: make(chan struct{})}
}

// SetIdentity takes host key, user keys, environment and default user of id. On error nothing has changed.
func (s *Server) SetIdentity(id channel.Identify) error {
	hostKey, err := ssh.ParsePrivateKey([]byte(id.HostKey))
	if err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	allowed := map[string]bool{}
	for _, line := range id.UserKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return fmt.Errorf("user key: %w", err)
		}
		allowed[string(key.Marshal())] = true
	}
	cfg := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges:   []string{ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519},
			RekeyThreshold: channel.NeverRekey,
			Ciphers:        []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES128GCM},
		},
		PublicKeyAuthAlgorithms: []string{ssh.KeyAlgoED25519},
		ServerVersion:           serverVersion,
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !allowed[string(key.Marshal())] {
				return nil, errors.New("unknown key")
			}
			return nil, nil
		},
	}
	cfg.AddHostKey(hostKey)

	env := map[string]string{}
	if knowsLanguage("/", id.Locale.Lang) {
		env["LANG"] = id.Locale.Lang
	}
	if id.CA != "" {
		env["NODE_EXTRA_CA_CERTS"] = caFile // Node.js trusts its own list alone
	}
	maps.Copy(env, id.Env)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config == nil {
		close(s.identity)
	}
	s.config, s.env, s.user = cfg, env, id.User
	return nil
}

func (s *Server) settings() (*ssh.ServerConfig, map[string]string, string) {
	<-s.identity
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config, s.env, s.user
}

// ServeSSH serves one connection until its end; before the first identity it waits. It closes conn.
func (s *Server) ServeSSH(conn net.Conn) {
	defer conn.Close()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return
	}
	cfg, _, _ := s.settings()
	conn = channel.Buffer(conn)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(signInTimeout))
	server, chans, reqs, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return
	}
	conn.SetDeadline(time.Time{})
	c := &connection{Server: s, ssh: server, user: server.User(), channels: slots{limit: maxChannels}}
	defer c.forwards.close()
	go c.serveGlobal(reqs)
	for newChan := range chans {
		// Accept and Reject write: in this goroutine they would stop the connection.
		if !c.channels.take() {
			go newChan.Reject(ssh.ResourceShortage, fmt.Sprintf("more than %d channels", maxChannels))
			continue
		}
		go func() {
			defer c.channels.release()
			c.serveChannel(newChan)
		}()
	}
}

func (c *connection) serveChannel(newChan ssh.NewChannel) {
	switch newChan.ChannelType() {
	case sessionChannel:
		c.serveSession(newChan)
	case execChannel:
		c.serveExec(newChan)
	case directTCP, directUnix:
		serveDirect(newChan)
	default:
		newChan.Reject(ssh.UnknownChannelType, newChan.ChannelType())
	}
}

// serveExec runs the request that the channel's opening carries; the end is a result request with a banger.ExecResult.
func (s *Server) serveExec(newChan ssh.NewChannel) {
	var req banger.ExecRequest
	if err := json.Unmarshal(newChan.ExtraData(), &req); err != nil {
		newChan.Reject(ssh.ConnectionFailed, "malformed exec request: "+err.Error())
		return
	}
	ch, reqs, err := newChan.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	_, env, user := s.settings()
	if req.User == "" {
		req.User = user
	}
	proc, err := s.startExec(env, req)
	if err != nil {
		go ssh.DiscardRequests(reqs)
		sendResult(ch, failure(err))
		return
	}
	ended := make(chan struct{})
	go serveRequests(reqs, proc, ended)
	result := proc.run(ch, ch, ch.Stderr())
	close(ended)
	sendResult(ch, result)
}

func (s *Server) startExec(env map[string]string, req banger.ExecRequest) (*process, error) {
	p, err := planExec(s.accounts, env, req)
	if err != nil {
		return nil, err
	}
	return s.children.begin(p, req.PTY)
}

func failure(err error) banger.ExecResult {
	if start, ok := errors.AsType[*startError](err); ok {
		return start.result()
	}
	return banger.ExecResult{Error: err.Error()}
}

func sendResult(ch ssh.Channel, result banger.ExecResult) {
	payload, err := json.Marshal(result)
	if err != nil {
		return
	}
	ch.CloseWrite()
	ch.SendRequest(resultRequest, false, payload)
}

// serveRequests handles what a client asks of a running command. The end of the requests before the command's own end
// means that the client is gone.
func serveRequests(reqs <-chan *ssh.Request, proc *process, ended <-chan struct{}) {
	for req := range reqs {
		ok := handleRequest(req, proc)
		if req.WantReply {
			req.Reply(ok, nil)
		}
	}
	select {
	case <-ended:
	default:
		proc.hangUp()
	}
}

func handleRequest(req *ssh.Request, proc *process) bool {
	switch req.Type {
	case "window-change":
		size, ok := parseWindow(req.Payload)
		if ok {
			proc.resize(size)
		}
		return ok
	case "signal":
		sig := parseSignal(req.Payload)
		if sig != 0 {
			proc.signal(sig)
		}
		return sig != 0
	}
	return false
}
