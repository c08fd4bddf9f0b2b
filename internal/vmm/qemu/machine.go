package qemu

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/vmm"
)

// servePause keeps a guest that ends its session again and again from keeping the host busy.
const servePause = 100 * time.Millisecond

// machine is a running QEMU. It implements vmm.Machine.
type machine struct {
	dir     statedir.VMDir
	handle  proc.Handle
	process *process // nil when QEMU was started by another supervisor: its exit status is not ours to know
	log     *slog.Logger

	qmp     *qmpClient
	console *console
	network net.Conn
	server  *channel.Server // the first; serve makes others
	served  chan struct{}   // closed when no server is left

	killed atomic.Bool
	gone   chan struct{} // closed when QEMU's process is gone
	done   chan struct{} // closed when exit is set
	exit   vmm.Exit

	mu     sync.Mutex
	events events
}

func newMachine(dir statedir.VMDir, h proc.Handle, log *slog.Logger) *machine {
	return &machine{dir: dir, handle: h, log: log, served: make(chan struct{}), gone: make(chan struct{}), done: make(chan struct{})}
}

// Console implements vmm.Machine.
func (m *machine) Console() io.ReadWriter { return m.console }

// Network implements vmm.Machine.
func (m *machine) Network() net.Conn { return m.network }

// PowerButton implements vmm.Machine.
func (m *machine) PowerButton(ctx context.Context) error { return m.qmp.do(ctx, "system_powerdown") }

// Kill implements vmm.Machine.
func (m *machine) Kill(ctx context.Context) error {
	m.killed.Store(true)
	if err := m.handle.Kill(ctx); err != nil {
		return err
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return &banger.Error{Kind: banger.ErrInterrupted, Op: "kill QEMU", Err: context.Cause(ctx)}
	}
}

// Wait implements vmm.Machine.
func (m *machine) Wait() vmm.Exit {
	<-m.done
	return m.exit
}

// run watches over the machine until its end.
func (m *machine) run() {
	go m.serve()
	go m.watch()
}

func (m *machine) watch() {
	err := m.handle.Wait(context.Background())
	close(m.gone)
	if err != nil {
		m.log.Error("wait for QEMU", "err", err)
	}
	<-m.qmp.done // events that QEMU sent before it died
	<-m.served
	m.network.Close()
	if err := removeSockets(m.dir); err != nil {
		m.log.Warn("remove the sockets of QEMU", "err", err)
	}
	m.exit = m.classify()
	close(m.done)
}

func (m *machine) classify() vmm.Exit {
	end := ending{killed: m.killed.Load(), inherited: m.process == nil}
	if m.process != nil {
		end.err, end.words = m.process.Exit(), m.process.words.String()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	end.events = m.events
	return end.exit()
}

// record keeps of QEMU's events what tells how the machine ends.
func (m *machine) record(e qmpEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Name {
	case "GUEST_PANICKED":
		m.events.panicked = true
	case "SHUTDOWN":
		m.events.shutdown = e.Data.Reason
	}
}

// serve keeps guest.sock leading into the guest: when a session ends while QEMU lives, as when the agent starts anew, the
// next one is greeted.
func (m *machine) serve() {
	defer close(m.served)
	server := m.server
	for {
		select {
		case <-m.gone:
			server.Close()
			return
		case <-server.Done():
		}
		err := server.Err()
		select {
		case <-m.gone:
			return
		case <-time.After(servePause):
		}
		m.log.Warn("the session with the guest has ended", "err", err)
		if errors.Is(err, banger.ErrUnsupported) {
			return // a guest of another version stays one
		}
		if server, err = m.serveAgain(); err != nil {
			m.log.Error("open the guest channel again", "err", err)
			return
		}
	}
}

func (m *machine) serveAgain() (*channel.Server, error) {
	conn, err := net.Dial("unix", m.dir.ChannelSocket())
	if err != nil {
		return nil, err
	}
	return channel.Serve(conn, m.dir.GuestSocket())
}

// console ends with io.EOF whatever ended it.
type console struct{ conn net.Conn }

func (c *console) Read(p []byte) (int, error) {
	n, err := c.conn.Read(p)
	if err != nil {
		c.conn.Close()
		err = io.EOF
	}
	return n, err
}

func (c *console) Write(p []byte) (int, error) { return c.conn.Write(p) }

// lastWordsSize is how much of QEMU's standard error is kept.
const lastWordsSize = 4 << 10

// lastWords keeps the end of what QEMU writes to its standard error. When we die, QEMU goes on without a reader.
type lastWords struct {
	ended chan struct{}
	buf   []byte // complete when ended is closed
}

// newLastWords gives the file that QEMU writes to; the caller closes it once QEMU has it.
func newLastWords() (*lastWords, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	words := &lastWords{ended: make(chan struct{})}
	go words.read(r)
	return words, w, nil
}

func (l *lastWords) read(r *os.File) {
	defer close(l.ended)
	defer r.Close()
	chunk := make([]byte, 1<<10)
	for {
		n, err := r.Read(chunk)
		l.buf = append(l.buf, chunk[:n]...)
		if excess := len(l.buf) - lastWordsSize; excess > 0 {
			l.buf = append(l.buf[:0], l.buf[excess:]...)
		}
		if err != nil {
			return
		}
	}
}

// String waits for the end of QEMU.
func (l *lastWords) String() string {
	<-l.ended
	return strings.ToValidUTF8(string(l.buf), "?")
}
