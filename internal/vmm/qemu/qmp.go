package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"banger"
)

// maxQMPLine bounds a message of QEMU, which has read hostile input. Nothing is kept of an event once it was handled.
const maxQMPLine = 1 << 20

// qmpEvent is something QEMU tells unasked.
type qmpEvent struct {
	Name string
	Data struct {
		Reason string `json:"reason"` // of SHUTDOWN
	}
}

// qmpError is QEMU's answer to a command that it did not carry out.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return fmt.Sprintf("QEMU: %s (%s)", e.Desc, e.Class) }

// qmpMessage is one line from QEMU; which field is set tells what it is.
type qmpMessage struct {
	Greeting *json.RawMessage `json:"QMP"`
	Return   *json.RawMessage `json:"return"`
	Error    *qmpError        `json:"error"`
	ID       string           `json:"id"`
	Event    string           `json:"event"`
	Data     json.RawMessage  `json:"data"`
}

// qmpClient speaks QEMU's machine protocol: commands are matched to answers by id, events are handed to a function in
// order. Its methods may be called concurrently.
type qmpClient struct {
	conn    net.Conn
	onEvent func(qmpEvent)
	done    chan struct{} // closed when QEMU's last line was handled

	writing sync.Mutex // one command line at a time; held over the write

	mu      sync.Mutex
	next    uint64
	waiting map[string]chan qmpMessage
	err     error // why reading ended
}

// newQMP reads the greeting and asks for commands. It owns conn; an error closes it. onEvent is called from the reading
// goroutine and must not block.
func newQMP(ctx context.Context, conn net.Conn, onEvent func(qmpEvent)) (*qmpClient, error) {
	c := &qmpClient{conn: conn, onEvent: onEvent, done: make(chan struct{}), waiting: map[string]chan qmpMessage{}}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	lines := bufio.NewReaderSize(conn, 4<<10)
	greeting, err := readQMP(lines)
	if err == nil && greeting.Greeting == nil {
		err = fmt.Errorf("%w: no greeting", banger.ErrCorrupt)
	}
	if !stop() && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("talk to QEMU: %w", err)
	}
	go c.read(lines)
	if err := c.do(ctx, "qmp_capabilities"); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// readQMP reads one line of at most maxQMPLine bytes.
func readQMP(r *bufio.Reader) (qmpMessage, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxQMPLine {
			return qmpMessage{}, fmt.Errorf("%w: a line of more than %d bytes", banger.ErrCorrupt, maxQMPLine)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return qmpMessage{}, err
		}
	}
	var m qmpMessage
	if err := json.Unmarshal(line, &m); err != nil {
		return qmpMessage{}, fmt.Errorf("%w: %w", banger.ErrCorrupt, err)
	}
	return m, nil
}

func (c *qmpClient) read(lines *bufio.Reader) {
	defer close(c.done)
	for {
		m, err := readQMP(lines)
		if err != nil {
			c.end(err)
			return
		}
		if m.Event != "" {
			event := qmpEvent{Name: m.Event}
			_ = json.Unmarshal(m.Data, &event.Data) // other events' data have other shapes
			c.onEvent(event)
			continue
		}
		c.mu.Lock()
		answer := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
}

// end fails what waits for an answer.
func (c *qmpClient) end(err error) {
	c.conn.Close()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for id, answer := range c.waiting {
		close(answer)
		delete(c.waiting, id)
	}
}

// do runs a command without arguments and waits for its answer. Errors: *qmpError; ErrUnavailable when QEMU is gone;
// ErrInterrupted.
func (c *qmpClient) do(ctx context.Context, command string) error {
	_, err := c.ask(ctx, command)
	return err
}

func (c *qmpClient) ask(ctx context.Context, command string) (json.RawMessage, error) {
	answer := make(chan qmpMessage, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.gone(command)
	}
	c.next++
	id := strconv.FormatUint(c.next, 10)
	c.waiting[id] = answer
	c.mu.Unlock()
	line, err := json.Marshal(struct {
		Execute string `json:"execute"`
		ID      string `json:"id"`
	}{command, id})
	if err == nil {
		err = c.write(append(line, '\n'))
	}
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "tell QEMU", Subject: command, Err: err}
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return nil, c.gone(command)
		case m.Error != nil:
			return nil, fmt.Errorf("%s: %w", command, m.Error)
		case m.Return == nil:
			return nil, fmt.Errorf("%w: QEMU's answer to %s has no content", banger.ErrCorrupt, command)
		}
		return *m.Return, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		return nil, &banger.Error{Kind: banger.ErrInterrupted, Op: "tell QEMU", Subject: command, Err: context.Cause(ctx)}
	}
}

func (c *qmpClient) write(line []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.conn.Write(line)
	return err
}

func (c *qmpClient) gone(command string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "tell QEMU", Subject: command, Err: c.err}
}

// close ends the connection and returns when the last event has been handed over.
func (c *qmpClient) close() {
	c.conn.Close()
	<-c.done
}
