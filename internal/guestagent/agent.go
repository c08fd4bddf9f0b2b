package guestagent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/channel"
)

const eventsRetry = 100 * time.Millisecond // between attempts to reach a host that does not listen yet

// agent is the part of the guest that serves until the end of the boot.
type agent struct {
	server *Server
	init   bool // process 1: no init of the image
	times  *clock

	mu     sync.Mutex
	events net.Conn // the stream that carries events now; nil between two
	ready  bool
	system *channel.System // told again on each stream
	ending sync.Once
}

func newAgent(times *clock, init bool) *agent {
	return &agent{server: NewServer(init), init: init, times: times}
}

// run serves host after host on the channel's port.
func (a *agent) run() error {
	if a.init {
		go a.handleSignals()
	} else {
		go a.awaitSystem()
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	for {
		conn, err := port.await()
		if err != nil {
			return err
		}
		session, err := channel.Guest(conn)
		if err != nil {
			logf("%v", err)
			continue
		}
		a.serve(session)
	}
}

// serve runs one session until the host leaves or another takes over.
func (a *agent) serve(session *channel.Session) {
	defer session.Close()
	go a.keepEvents(session)
	session.Serve(func(port uint32) channel.Handler {
		switch port {
		case channel.PortSSH:
			return a.server.ServeSSH
		case channel.PortFiles:
			return a.server.ServeFiles
		case channel.PortDial:
			return a.server.ServeDial
		case channel.PortListen:
			return a.server.ServeListeners
		}
		return nil
	})
}

// keepEvents holds a stream of events open as long as the session lives.
func (a *agent) keepEvents(session *channel.Session) {
	for {
		conn, err := session.Open(context.Background(), channel.PortEvents)
		if err == nil {
			err = a.exchange(conn)
			conn.Close()
			logf("events: %v", err)
		}
		select {
		case <-session.Done():
			return
		case <-time.After(eventsRetry):
		}
	}
}

func (a *agent) exchange(conn net.Conn) error {
	hello, err := makeHello()
	if err != nil {
		return err
	}
	if err := channel.WriteLine(conn, &channel.FromGuest{Hello: hello}); err != nil {
		return err
	}
	a.mu.Lock()
	a.events = conn
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.events = nil
	}()
	for r := bufio.NewReaderSize(conn, channel.MaxToGuest); ; {
		var m channel.ToGuest
		if err := channel.ReadLine(r, &m, channel.MaxToGuest); err != nil {
			return err
		}
		if m.PowerOff != nil {
			go a.end(false, m.PowerOff.Grace)
			continue
		}
		if err := a.identify(m.Identify); err != nil {
			return fmt.Errorf("identify: %w", err)
		}
	}
}

// identify applies an identity and answers it; the first one completes the boot.
func (a *agent) identify(id *channel.Identify) error {
	a.mu.Lock()
	first := !a.ready
	a.mu.Unlock()
	if first {
		a.times.done("channel")
	}
	if err := a.server.SetIdentity(*id); err != nil {
		return err
	}
	applyIdentity(systemSettings, id)
	if first {
		a.times.done("identify")
	}
	if err := a.send(&channel.FromGuest{Ready: &channel.Ready{Timings: a.times.steps}}); err != nil {
		return err
	}
	a.mu.Lock()
	a.ready = true
	system := a.system
	a.mu.Unlock()
	if system != nil {
		return a.send(&channel.FromGuest{System: system})
	}
	return nil
}

var errNoHost = errors.New("no host listens to events")

func (a *agent) send(m *channel.FromGuest) error {
	a.mu.Lock()
	conn := a.events
	a.mu.Unlock()
	if conn == nil {
		return errNoHost
	}
	return channel.WriteLine(conn, m)
}

func makeHello() (*channel.Hello, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, err
	}
	return &channel.Hello{Version: channel.ProtocolVersion, BootID: strings.TrimSpace(string(boot)),
		Kernel: unix.ByteSliceToString(uts.Release[:])}, nil
}

// handleSignals does what an init does: programs such as busybox's halt, poweroff and reboot send these to process 1.
func (a *agent) handleSignals() {
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR, unix.SIGTERM, unix.SIGINT)
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	for sig := range sigs {
		go a.end(sig == unix.SIGTERM || sig == unix.SIGINT, signalGrace)
	}
}
