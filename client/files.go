package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strconv"

	"banger"
	"banger/api"
)

// ReadFiles reads a file or tree of a VM that does not run, in the format in which banger copies files, which is its own and may change.
// The VM can't start until the reader is at the end or closed. Errors: ErrConflict when it runs.
func (c *Client) ReadFiles(ctx context.Context, ref, path string, follow bool) (io.ReadCloser, error) {
	query := url.Values{api.PathParam: {path}, api.FollowParam: {strconv.FormatBool(follow)}}
	resp, err := c.do(ctx, api.RouteVMFiles, ref, query, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Borrow boots a VM that does not run without the image's own init and keeps it running until giveBack, which waits until it has stopped.
// Nobody else starts it meanwhile; a stop by somebody else ends the loan. A borrower that is gone has given it back.
// Errors: ErrConflict when the VM runs.
func (c *Client) Borrow(ctx context.Context, ref string, progress banger.ProgressFunc) (vm api.VMDetail, giveBack func(context.Context) error, err error) {
	loan, end := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			end()
		}
	}()
	stop := context.AfterFunc(ctx, end)
	resp, err := c.do(loan, api.RouteVMLend, ref, nil, nil)
	if err != nil {
		return vm, nil, unavailable(ctx, err)
	}
	for dec := json.NewDecoder(resp.Body); ; {
		var event api.Event
		if err := dec.Decode(&event); err != nil {
			return vm, nil, unavailable(ctx, err)
		}
		switch {
		case event.Progress != nil:
			progress.Report(*event.Progress)
		case event.Error != nil:
			return vm, nil, event.Error.Decode()
		case event.VM != nil:
			if !stop() {
				return vm, nil, unavailable(ctx, ctx.Err()) // it was cancelled meanwhile
			}
			return *event.VM, func(ctx context.Context) error {
				end()
				resp.Body.Close()
				_, err := c.StopVM(ctx, string(event.VM.ID), 0, progress)
				return err
			}, nil
		}
	}
}
