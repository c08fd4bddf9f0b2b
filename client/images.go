package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"banger"
	"banger/api"
)

// RegisterImage makes an image of an ext4 image that stays where it is. Cancelling ctx undoes it.
func (c *Client) RegisterImage(ctx context.Context, req api.RegisterRequest, progress banger.ProgressFunc) (banger.Image, error) {
	return c.makeImage(ctx, api.RouteImageRegister, "", req, progress)
}

// PromoteImage copies the file of a registered image into the state directory. Cancelling ctx leaves it registered.
func (c *Client) PromoteImage(ctx context.Context, ref string, progress banger.ProgressFunc) (banger.Image, error) {
	return c.makeImage(ctx, api.RouteImagePromote, ref, nil, progress)
}

// PruneImages removes images that no VM uses.
func (c *Client) PruneImages(ctx context.Context, req api.PruneRequest) (api.Pruned, error) {
	return ask[api.Pruned](ctx, c, api.RouteImagePrune, "", req)
}

// PruneCache removes what registries gave and no pull is using.
func (c *Client) PruneCache(ctx context.Context, dryRun bool) (api.Pruned, error) {
	return ask[api.Pruned](ctx, c, api.RouteCachePrune, "", api.PruneRequest{DryRun: dryRun})
}

// ExportImage writes the root file system of an image to w, as a tar. It is whole when there is no error.
func (c *Client) ExportImage(ctx context.Context, ref string, w io.Writer) error {
	resp, err := c.do(ctx, api.RouteImageExport, ref, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := &failing{r: resp.Body}
	if _, err := io.Copy(w, in); in.err != nil {
		return unavailable(ctx, in.err)
	} else if err != nil {
		return err
	}
	text := resp.Trailer.Get(api.ErrorTrailer)
	if text == "" {
		return nil
	}
	var wire banger.ErrorBody
	if err := json.Unmarshal([]byte(text), &wire); err != nil {
		return unavailable(ctx, err)
	}
	return wire.Decode()
}

// failing tells an error of the reader from one of the writer that its bytes go to.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
