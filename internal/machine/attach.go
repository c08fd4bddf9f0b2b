package machine

import (
	"context"
	"net"
)

// Attach connects to the console: what the guest writes comes, from a little before now on, and what is written to the connection the
// guest reads as typed. ctx bounds the connecting only. The connection has CloseWrite.
func (c Client) Attach(ctx context.Context) (net.Conn, error) {
	conn, err := c.ask(ctx, Request{Attach: &struct{}{}})
	if err != nil {
		return nil, err
	}
	return conn, nil
}
