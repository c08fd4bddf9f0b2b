package machine

import (
	"context"

	"banger"
)

// Stats is what a run uses.
type Stats struct {
	VMM     *banger.ProcessUsage `json:"vmm,omitempty"` // absent while there is none
	Machine banger.ProcessUsage  `json:"machine"`       // of the supervisor
	Streams Streams              `json:"streams"`

	Net banger.NetTraffic `json:"net"` // since the supervisor started
}

// Streams are the clients' commands and connections into the guest.
type Streams struct {
	Open  int `json:"open"`
	Begun int `json:"begun"` // since the supervisor started
}

// Stats tells what the run uses.
func (c Client) Stats(ctx context.Context) (Stats, error) {
	resp, err := c.answer(ctx, Request{Stats: &struct{}{}})
	if err == nil && resp.Stats == nil {
		err = c.noAnswer()
	}
	if err != nil {
		return Stats{}, err
	}
	return *resp.Stats, nil
}
