package client

import (
	"context"
	"net/url"

	"banger/api"
)

// Stats tells what the VMs that refs name use, or all that run. A reference that names none is an error in the answer.
func (c *Client) Stats(ctx context.Context, refs ...string) (api.Stats, error) {
	return exchange[api.Stats](ctx, c, api.RouteStats, "", url.Values{api.RefParam: refs}, nil)
}
