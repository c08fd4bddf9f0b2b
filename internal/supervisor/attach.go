package supervisor

import (
	"bufio"
	"context"
	"io"
	"net"

	"banger"
	"banger/internal/machine"
)

// attachTail is how much of what the console has shown already comes first: a prompt that waits.
const attachTail = 1 << 10

// attach connects a client with the console until it leaves or the run ends. Several may be attached at a time.
func (s *server) attach(conn net.Conn, r *bufio.Reader) error {
	if !await(s.stop, s.launched) {
		return refuse(conn, &banger.Error{Kind: banger.ErrUnavailable, Op: "attach", Err: errEnded})
	}
	if err := machine.WriteResponse(conn, machine.Response{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(keyboard{s}, r)
	}()
	shown := s.ring.Written()
	return s.ring.Follow(ctx, shown-min(shown, attachTail), conn)
}

// keyboard types on the console of the newest boot.
type keyboard struct{ *server }

func (k keyboard) Write(p []byte) (int, error) {
	k.run.mu.Lock()
	boot := k.boot
	k.run.mu.Unlock()
	if boot == nil {
		return len(p), nil
	}
	return boot.machine.Console().Write(p)
}
