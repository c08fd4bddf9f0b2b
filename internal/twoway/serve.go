package twoway

import (
	"bufio"
	"context"
	"io"
	"sync"

	"banger"
)

// Serve answers for a directory until the connection ends. r is what comes from the host.
func Serve(conn io.Writer, r *bufio.Reader, l *Local) error {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{Local: l, w: conn}
	var telling sync.WaitGroup
	telling.Go(func() { s.tell(ctx) })
	defer telling.Wait()
	defer cancel()
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		var o op
		if err := f.decode(frameOp, &o); err != nil {
			return err
		}
		if err := s.do(ctx, r, o); err != nil {
			return err
		}
	}
}

type server struct {
	*Local
	mu sync.Mutex // of w
	w  io.Writer
}

func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// tell sends what may have changed.
func (s *server) tell(ctx context.Context) {
	for {
		select {
		case <-s.Changed():
		case <-ctx.Done():
			return
		}
		paths, all, err := s.Take()
		n := news{All: all}
		size := 0
		for _, at := range paths {
			if n.Paths, size = append(n.Paths, []byte(at)), size+len(at); size > maxBatch {
				if writeMessage(s, frameChange, n) != nil {
					return // the reader finds out
				}
				n, size = news{}, 0
			}
		}
		n.Error = encodeError(err)
		if writeMessage(s, frameChange, n) != nil || err != nil {
			return
		}
	}
}

// do answers one op. The error ends the conversation.
func (s *server) do(ctx context.Context, r *bufio.Reader, o op) error {
	switch {
	case o.List != nil:
		children, err := s.List(ctx, texts(o.List))
		if err != nil {
			return s.refuse(err)
		}
		return s.answerList(children)
	case o.Look != nil:
		found, err := s.Look(ctx, texts(o.Look), o.Blobs)
		return s.answer(answer{Found: found, Error: encodeError(err)})
	case o.Read != nil:
		return s.read(ctx, string(o.Read))
	case o.Write != nil:
		content := &received{next: func() (frame, error) { return readFrame(r) }}
		result, err := Result{}, check(o.Write)
		if err == nil {
			result, err = s.Local.Write(ctx, o.Write.put(), o.Write.Item, content)
		}
		if lost := content.drain(); lost != nil {
			return lost
		}
		return s.result(result, err)
	case o.Remove != nil:
		result, err := Result{}, check(o.Remove)
		if err == nil {
			result, err = s.Remove(ctx, o.Remove.put())
		}
		return s.result(result, err)
	case o.Aside != nil:
		kept, err := "", check(o.Aside)
		if err == nil {
			kept, err = s.Aside(ctx, string(o.Aside.Path), string(o.Aside.Keep))
		}
		return s.answer(answer{Kept: []byte(kept), Error: encodeError(err)})
	}
	return s.refuse(banger.Invalidf("a request that sets no field"))
}

func check(c *change) error {
	for _, at := range [][]byte{c.Path, c.Keep} {
		if !valid(string(at)) {
			return banger.Invalidf("path %.300q: want one below the directory", at)
		}
	}
	return nil
}

func (s *server) answer(a answer) error { return writeMessage(s, frameAnswer, a) }

func (s *server) refuse(err error) error { return s.answer(answer{Error: encodeError(err)}) }

func (s *server) result(r Result, err error) error {
	if err != nil {
		return s.refuse(err)
	}
	return s.answer(answer{Result: &r, Kept: []byte(r.Kept)})
}

func (s *server) answerList(children []Child) error {
	a := answer{More: true}
	size := 0
	for _, c := range children {
		a.Children, size = append(a.Children, child{[]byte(c.Path), c.Dir}), size+len(c.Path)+16
		if size > maxBatch {
			if err := s.answer(a); err != nil {
				return err
			}
			a.Children, size = nil, 0
		}
	}
	a.More = false
	return s.answer(a)
}

func (s *server) read(ctx context.Context, at string) error {
	if !valid(at) {
		return s.refuse(banger.Invalidf("path %.300q: want one below the directory", at))
	}
	item, content, err := s.Read(ctx, at)
	if err != nil {
		return s.refuse(err)
	}
	defer content.Close()
	if err := s.answer(answer{Item: &item}); err != nil {
		return err
	}
	return sendContent(s, content)
}

// texts gives paths of the host; those that are none stand for nothing.
func texts(paths [][]byte) []string {
	list := make([]string, len(paths))
	for i, at := range paths {
		if list[i] = string(at); list[i] != "." && !valid(list[i]) {
			list[i] = stagingPrefix // which is never there
		}
	}
	return list
}
