package guestagent

import (
	"io"
	"math"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"banger"
)

// Payloads of the requests of a session (RFC 4254 section 6).
type (
	ptyPayload struct {
		Term                string
		Cols, Rows          uint32
		WidthPx, HeightPx   uint32
		EncodedTerminalMode string
	}
	windowPayload struct{ Cols, Rows, WidthPx, HeightPx uint32 }
	envPayload    struct{ Name, Value string }
	textPayload   struct{ Text string } // exec, signal
	statusPayload struct{ Status uint32 }
	signalPayload struct {
		Signal     string
		CoreDumped bool
		Message    string
		Language   string
	}
)

func parseWindow(payload []byte) (banger.PTY, bool) {
	var w windowPayload
	if ssh.Unmarshal(payload, &w) != nil {
		return banger.PTY{}, false
	}
	return banger.PTY{Rows: cells(w.Rows), Cols: cells(w.Cols)}, true
}

func cells(n uint32) uint16 { return uint16(min(n, math.MaxUint16)) }

func parseSignal(payload []byte) unix.Signal {
	var p textPayload
	if ssh.Unmarshal(payload, &p) != nil {
		return 0
	}
	return unix.Signal(banger.SignalNumber(p.Text))
}

// session is a standard SSH session before its command starts.
type session struct {
	req      banger.ExecRequest
	command  string // for the user's shell; empty: a login shell
	sftp     bool   // instead of a command
	agent    bool   // the client lends its key agent
	envBytes int
}

// starts tells the requests that end the setup.
func starts(request string) bool {
	return request == "shell" || request == "exec" || request == "subsystem"
}

// serveSession collects what a session asks for, starts its shell or command and reports the end as RFC 4254 says.
func (c *connection) serveSession(newChan ssh.NewChannel) {
	ch, reqs, err := newChan.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	setup := session{req: banger.ExecRequest{User: c.user, Env: map[string]string{}}}
	for pending := 0; pending < maxPending+maxEnvRequests; pending++ {
		req, ok := <-reqs
		if !ok {
			return
		}
		if ok = setup.take(req.Type, req.Payload); ok && starts(req.Type) {
			c.runSession(ch, reqs, req, &setup)
			return
		}
		if req.WantReply {
			req.Reply(ok, nil)
		}
	}
	go ssh.DiscardRequests(reqs)
}

// take applies one request; false refuses it.
func (s *session) take(request string, payload []byte) bool {
	switch request {
	case "env":
		return s.takeEnv(payload)
	case "pty-req":
		var p ptyPayload
		if ssh.Unmarshal(payload, &p) != nil || len(p.Term) > maxTerminalName || hasNUL(p.Term) {
			return false
		}
		s.req.PTY = &banger.PTY{Term: p.Term, Rows: cells(p.Rows), Cols: cells(p.Cols)}
		return true
	case "window-change":
		size, ok := parseWindow(payload)
		if !ok || s.req.PTY == nil {
			return false
		}
		s.req.PTY.Rows, s.req.PTY.Cols = size.Rows, size.Cols
		return true
	case agentRequest:
		s.agent = true
		return true
	case "shell":
		return true
	case "exec", "subsystem":
		var p textPayload
		if ssh.Unmarshal(payload, &p) != nil || hasNUL(p.Text) {
			return false
		}
		if request == "subsystem" {
			s.sftp = p.Text == "sftp"
			return s.sftp
		}
		s.command = p.Text
		return true
	}
	return false
}

func (s *session) takeEnv(payload []byte) bool {
	var p envPayload
	if ssh.Unmarshal(payload, &p) != nil {
		return false
	}
	s.envBytes += len(p.Name) + len(p.Value)
	if s.envBytes > maxEnvBytes || len(s.req.Env) >= maxEnvRequests {
		return false
	}
	if _, err := envList(map[string]string{p.Name: p.Value}); err != nil {
		return false
	}
	s.req.Env[p.Name] = p.Value
	return true
}

func (c *connection) runSession(ch ssh.Channel, reqs <-chan *ssh.Request, start *ssh.Request, setup *session) {
	_, env, _ := c.settings()
	proc, release, err := c.startSession(env, setup)
	defer release()
	if start.WantReply {
		start.Reply(true, nil)
	}
	if err != nil {
		go ssh.DiscardRequests(reqs)
		ch.Stderr().Write([]byte(err.Error() + "\n"))
		endSession(ch, failure(err))
		return
	}
	ended := make(chan struct{})
	go serveRequests(reqs, proc, ended)
	var stdin io.Reader = ch
	if setup.sftp {
		stdin = wholeRequests{ch}
	}
	result := proc.run(stdin, ch, ch.Stderr())
	close(ended)
	endSession(ch, result)
}

// startSession starts what the session asks for; release undoes what the process needed, when it has ended or did not start.
func (c *connection) startSession(env map[string]string, setup *session) (proc *process, release func(), err error) {
	release = func() {}
	if setup.agent {
		acct, err := c.accounts.find(setup.req.User)
		if err != nil {
			return nil, release, &startError{err: err}
		}
		sock, end, err := c.lendAgent(acct)
		if err != nil {
			return nil, release, &startError{err: err}
		}
		setup.req.Env[agentEnv], release = sock, end
	}
	p, err := planExec(c.accounts, env, setup.req)
	if err != nil {
		return nil, release, err
	}
	switch {
	case setup.sftp:
		p.useSelf(sftpName)
	case setup.command != "":
		err = p.useShell(setup.command)
	}
	if err != nil {
		return nil, release, err
	}
	proc, err = c.children.begin(p, setup.req.PTY)
	if err == nil && setup.sftp {
		proc.widen(sftpPipe)
	}
	return proc, release, err
}

func endSession(ch ssh.Channel, result banger.ExecResult) {
	ch.CloseWrite()
	if result.Signal != "" {
		ch.SendRequest("exit-signal", false, ssh.Marshal(signalPayload{Signal: result.Signal}))
		return
	}
	ch.SendRequest("exit-status", false, ssh.Marshal(statusPayload{uint32(result.ExitStatus())}))
}
