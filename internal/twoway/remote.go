package twoway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
)

// Remote is a side behind a connection that [Serve] answers. What it says is not trusted.
type Remote struct {
	conn   io.WriteCloser
	asking sync.Mutex // one op at a time

	frames chan frame
	closed chan struct{}
	once   sync.Once

	mu sync.Mutex
	changes
}

// NewRemote speaks over a connection, which it closes. r is what comes from the guest.
func NewRemote(conn io.WriteCloser, r *bufio.Reader) *Remote {
	s := &Remote{conn: conn, frames: make(chan frame), closed: make(chan struct{}), changes: newChanges()}
	go s.read(r)
	return s
}

// Close ends the conversation.
func (s *Remote) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closed)
		err = s.conn.Close()
	})
	return err
}

// read takes frames: changes at any time, the rest for who asks.
func (s *Remote) read(r *bufio.Reader) {
	for {
		f, err := readFrame(r)
		if err == nil && f.kind == frameChange {
			err = s.noteNews(f)
			if err == nil {
				continue
			}
		}
		if err != nil {
			s.mu.Lock()
			s.fail(err)
			s.mu.Unlock()
			close(s.frames)
			return
		}
		select {
		case s.frames <- f:
		case <-s.closed:
			close(s.frames)
			return
		}
	}
}

func (s *Remote) noteNews(f frame) error {
	var n news
	if err := f.decode(frameChange, &n); err != nil {
		return err
	}
	if n.Error != nil {
		return n.Error.Decode()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range n.Paths {
		if valid(string(at)) {
			s.mark(string(at))
		}
	}
	if n.All {
		s.markAll()
	}
	return nil
}

func (s *Remote) Changed() <-chan struct{} { return s.rung }

func (s *Remote) Take() ([]string, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take()
}

func (s *Remote) next() (frame, error) {
	if f, ok := <-s.frames; ok {
		return f, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return frame{}, s.err
	}
	return frame{}, gone(nil)
}

// ask sends an op with content, and gives the first answer. asking is held. The end of ctx ends the conversation.
func (s *Remote) ask(ctx context.Context, o op, content io.Reader) (answer, error) {
	if ctx.Err() != nil {
		return answer{}, context.Cause(ctx)
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	err := writeMessage(s.conn, frameOp, o)
	if err == nil && content != nil {
		err = sendContent(s.conn, content)
	}
	var a answer
	if err == nil {
		a, err = s.answer()
	}
	if err != nil && ctx.Err() != nil {
		return answer{}, context.Cause(ctx)
	}
	return a, err
}

func (s *Remote) answer() (a answer, err error) {
	f, err := s.next()
	if err != nil {
		return a, err
	}
	if err := f.decode(frameAnswer, &a); err != nil {
		return a, err
	}
	if a.Error != nil {
		return a, a.Error.Decode()
	}
	return a, nil
}

// batches cuts paths so that each part fits a frame.
func batches(paths []string) (parts [][][]byte) {
	size := maxBatch
	for _, at := range paths {
		if size += len(at) + 200; size > maxBatch { // with what is found at it
			parts, size = append(parts, nil), 0
		}
		last := len(parts) - 1
		parts[last] = append(parts[last], []byte(at))
	}
	return parts
}

func (s *Remote) List(ctx context.Context, dirs []string) (all []Child, err error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	for _, part := range batches(dirs) {
		a, err := s.ask(ctx, op{List: part}, nil)
		for err == nil {
			for _, c := range a.Children {
				if at := string(c.Path); valid(at) {
					all = append(all, Child{at, c.Dir})
				}
			}
			if len(all) > MaxFiles {
				return nil, tooMany("guest")
			}
			if !a.More {
				break
			}
			a, err = s.answer()
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *Remote) Look(ctx context.Context, paths []string, blobs bool) (all []Found, err error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	for _, part := range batches(paths) {
		a, err := s.ask(ctx, op{Look: part, Blobs: blobs}, nil)
		if err == nil && len(a.Found) != len(part) {
			err = corrupt("%d states of %d paths", len(a.Found), len(part))
		}
		if err != nil {
			return nil, err
		}
		for _, f := range a.Found {
			if f.Kind > Other {
				f = Found{State: State{Kind: Other}}
			}
			all = append(all, f)
		}
	}
	return all, nil
}

func (s *Remote) Read(ctx context.Context, at string) (Item, io.ReadCloser, error) {
	s.asking.Lock()
	a, err := s.ask(ctx, op{Read: []byte(at)}, nil)
	if err == nil && (a.Item == nil || a.Item.Kind > Link) {
		err = corrupt("an answer without what was read")
	}
	if err != nil {
		s.asking.Unlock()
		return Item{}, nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	return *a.Item, &remoteContent{received{next: s.next}, s, stop}, nil
}

// remoteContent holds the conversation until it is closed.
type remoteContent struct {
	received
	s    *Remote
	stop func() bool
}

func (c *remoteContent) Close() error {
	defer c.s.asking.Unlock()
	defer c.stop()
	if errors.Is(c.err, io.EOF) && len(c.rest) == 0 {
		return nil
	}
	if _, told := errors.AsType[*failed](c.err); told && len(c.rest) == 0 {
		return nil
	}
	return c.drain()
}

func (s *Remote) Write(ctx context.Context, put Put, item Item, content io.Reader) (Result, error) {
	if item.Kind != File {
		content = eof{}
	}
	return s.change(ctx, op{Write: wireChange(put, item)}, &limited{ctx: ctx, r: content, left: MaxSize})
}

func wireChange(put Put, item Item) *change {
	return &change{[]byte(put.Path), []byte(put.Keep), put.Expect, put.Always, item}
}

func (s *Remote) change(ctx context.Context, o op, content io.Reader) (Result, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	a, err := s.ask(ctx, o, content)
	if err != nil {
		return Result{}, err
	}
	if a.Result == nil || a.Result.Outcome < Done || a.Result.Outcome > Clash || len(a.Kept) > 0 && !valid(string(a.Kept)) {
		return Result{}, corrupt("an answer without a result")
	}
	a.Result.Kept = string(a.Kept)
	return *a.Result, nil
}

func (s *Remote) Remove(ctx context.Context, put Put) (Result, error) {
	return s.change(ctx, op{Remove: wireChange(put, Item{})}, nil)
}

func (s *Remote) Aside(ctx context.Context, at, as string) (string, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	a, err := s.ask(ctx, op{Aside: wireChange(Put{Path: at, Keep: as}, Item{})}, nil)
	if err == nil && len(a.Kept) > 0 && !valid(string(a.Kept)) {
		err = corrupt("%.300q is no path", a.Kept)
	}
	return string(a.Kept), err
}
