package cli

import (
	"context"

	"banger/client"
)

// dial connects to the daemon and starts it when none runs.
func (a *app) dial(ctx context.Context) (*client.Client, error) {
	return client.Dial(ctx, client.Config{})
}

// dialExisting connects to the daemon if one runs.
func (a *app) dialExisting(ctx context.Context) (*client.Client, error) {
	return client.DialExisting(ctx, client.Config{})
}
