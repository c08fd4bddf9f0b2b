package client

import (
	"context"

	"banger/internal/api"
)

// Dial connects to a running daemon. Errors: ErrUnavailable when none answers.
func Dial(ctx context.Context, cfg Config) (*Client, error) { return DialExisting(ctx, cfg) }

// Shutdown asks the daemon to end. VMs go on.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := get[struct{}](ctx, c, api.RouteShutdown, "")
	return err
}
