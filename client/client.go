// Package client is the Go client of the owner daemon.
//
// Methods that take long report progress; cancelling their context ends the waiting and, for those that make something, the work
// itself. Detach lets the work go on without us.
// Errors have the kinds of package banger, with the daemon's message, hint and operation id.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/api"
	"banger/internal/proc"
	"banger/internal/statedir"
)

// Config says where the daemon is. Its zero value is the daemon of this user.
type Config struct {
	StateDir string // absolute path; empty: $BANGER_STATE_DIR, else banger in $XDG_STATE_HOME or ~/.local/state
	Daemon   string // path of bangerd; empty: beside this program, or else in $PATH
}

// Complete fills in what is left open. It fails when this user has no home, and with ErrUnavailable when this program is gone.
func (c Config) Complete() (Config, error) {
	if c.StateDir == "" {
		dir, err := statedir.Locate()
		if err != nil {
			return c, err
		}
		c.StateDir = dir.Root
	}
	if c.Daemon != "" {
		return c, nil
	}
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return c, &banger.Error{Kind: banger.ErrUnavailable, Op: "find bangerd", Err: err}
	}
	c.Daemon = filepath.Join(filepath.Dir(self), "bangerd")
	if _, err := os.Stat(c.Daemon); err != nil {
		if installed, err := proc.LookPath("bangerd"); err == nil {
			c.Daemon = installed
		}
	}
	return c, nil
}

func (c Config) dir() statedir.Dir { return statedir.Dir{Root: c.StateDir} }

// Client speaks to one daemon. It is safe for concurrent use.
type Client struct {
	cfg   Config
	http  *http.Client
	first chan net.Conn // what the first request uses
}

// DialExisting connects to a running daemon and never starts one. Errors: ErrUnavailable when none answers.
func DialExisting(ctx context.Context, cfg Config) (*Client, error) {
	cfg, err := cfg.Complete()
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, cfg)
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "connect to the daemon", Subject: cfg.dir().DaemonSocket(), Err: err,
			Hint: "any command that works on VMs starts it"}
	}
	return newClient(cfg, conn, connect), nil
}

func connect(ctx context.Context, cfg Config) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", cfg.dir().DaemonSocket())
}

// newClient makes the client whose first request uses conn, and later ones what again connects to.
func newClient(cfg Config, conn net.Conn, again func(context.Context, Config) (net.Conn, error)) *Client {
	first := make(chan net.Conn, 1)
	first <- conn
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case conn := <-first:
			return conn, nil
		default:
			return again(ctx, cfg)
		}
	}
	return &Client{cfg: cfg, first: first, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}}
}

// Close gives up idle connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	select {
	case conn := <-c.first:
		conn.Close()
	default:
	}
}

// CreateVM makes a VM and starts it when the request says so. Cancelling ctx undoes it.
func (c *Client) CreateVM(ctx context.Context, req api.CreateRequest, progress banger.ProgressFunc) (api.VMDetail, error) {
	return c.stream(ctx, api.RouteVMCreate, "", nil, req, progress)
}

// StartVM boots a VM and returns when its guest is ready. A running VM is no error. Errors: ErrRefused when there is not the memory.
func (c *Client) StartVM(ctx context.Context, ref string, req api.StartRequest, progress banger.ProgressFunc) (api.VMDetail, error) {
	return c.stream(ctx, api.RouteVMStart, ref, nil, req, progress)
}

// StopVM asks the guest to power off and kills the VMM after timeout; 0 takes the daemon's default. A stopped VM is no error.
func (c *Client) StopVM(ctx context.Context, ref string, timeout time.Duration, progress banger.ProgressFunc) (api.VMDetail, error) {
	return c.stream(ctx, api.RouteVMStop, ref, nil, api.StopRequest{Timeout: timeout}, progress)
}

// DeleteVM removes a VM with its disk and gives its last record. Work in it that the host does not have is kept.
// Errors: ErrConflict when it runs and force is not set, or when its work can't be kept.
func (c *Client) DeleteVM(ctx context.Context, ref string, force bool, progress banger.ProgressFunc) (api.VMDetail, error) {
	return c.stream(ctx, api.RouteVMDelete, ref, param(api.ForceParam, force), nil, progress)
}

// DiscardVM removes a VM, whatever it does, with the work in it.
func (c *Client) DiscardVM(ctx context.Context, ref string, progress banger.ProgressFunc) (api.VMDetail, error) {
	return c.stream(ctx, api.RouteVMDelete, ref, param(api.DiscardParam, true), nil, progress)
}

// ListVMs gives every VM, oldest first.
func (c *Client) ListVMs(ctx context.Context) ([]banger.VM, error) {
	return get[[]banger.VM](ctx, c, api.RouteVMList, "")
}

// ShowVM gives one VM by name, id or unique prefix of an id.
func (c *Client) ShowVM(ctx context.Context, ref string) (api.VMDetail, error) {
	return get[api.VMDetail](ctx, c, api.RouteVMShow, ref)
}

// Images gives every image that is ready for use.
func (c *Client) Images(ctx context.Context) ([]banger.Image, error) {
	return get[[]banger.Image](ctx, c, api.RouteImageList, "")
}

// ShowImage gives one image by name or the beginning of its key.
func (c *Client) ShowImage(ctx context.Context, ref string) (api.ImageDetail, error) {
	return get[api.ImageDetail](ctx, c, api.RouteImageShow, ref)
}

// ImportImage makes an image from what lies at an absolute path on the host. Cancelling ctx undoes it.
func (c *Client) ImportImage(ctx context.Context, req api.ImportRequest, progress banger.ProgressFunc) (banger.Image, error) {
	return c.makeImage(ctx, api.RouteImageImport, "", req, progress)
}

// BuildImage makes an image from packages. Cancelling ctx undoes it, unless others wait for the same.
func (c *Client) BuildImage(ctx context.Context, req api.BuildRequest, progress banger.ProgressFunc) (banger.Image, error) {
	return c.makeImage(ctx, api.RouteImageBuild, "", req, progress)
}

// PullImage makes an image of what a registry has. Cancelling ctx undoes it.
func (c *Client) PullImage(ctx context.Context, req api.PullRequest, progress banger.ProgressFunc) (banger.Image, error) {
	return c.makeImage(ctx, api.RouteImagePull, "", req, progress)
}

func (c *Client) makeImage(ctx context.Context, route, ref string, req any, progress banger.ProgressFunc) (banger.Image, error) {
	last, err := c.events(ctx, route, ref, nil, req, progress)
	if err != nil || last.Image == nil {
		return banger.Image{}, err
	}
	return *last.Image, nil
}

// DeleteImage removes an image and gives its record. Errors: ErrConflict while a VM uses it.
func (c *Client) DeleteImage(ctx context.Context, ref string) (banger.Image, error) {
	return get[banger.Image](ctx, c, api.RouteImageDelete, ref)
}

// Kernels gives every kernel that is ready for use.
func (c *Client) Kernels(ctx context.Context) ([]banger.Kernel, error) {
	return get[[]banger.Kernel](ctx, c, api.RouteKernelList, "")
}

// OfferedKernels gives the kernels that can be had by their name.
func (c *Client) OfferedKernels(ctx context.Context) ([]banger.KernelOffer, error) {
	return get[[]banger.KernelOffer](ctx, c, api.RouteKernelOffers, "")
}

// ShowKernel gives one kernel by name.
func (c *Client) ShowKernel(ctx context.Context, name string) (banger.Kernel, error) {
	return get[banger.Kernel](ctx, c, api.RouteKernelShow, name)
}

// ImportKernel makes a kernel from what lies at absolute paths on the host, or of the host's own. Cancelling ctx undoes it.
func (c *Client) ImportKernel(ctx context.Context, req api.ImportKernelRequest, progress banger.ProgressFunc) (banger.Kernel, error) {
	return c.makeKernel(ctx, api.RouteKernelImport, req, progress)
}

// PullKernel fetches a kernel that can be had by its name, unless it is there. Cancelling ctx undoes it, if nobody else waits for it.
func (c *Client) PullKernel(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error) {
	return c.makeKernel(ctx, api.RouteKernelPull, api.PullKernelRequest{Name: name}, progress)
}

func (c *Client) makeKernel(ctx context.Context, route string, req any, progress banger.ProgressFunc) (banger.Kernel, error) {
	last, err := c.events(ctx, route, "", nil, req, progress)
	if err != nil || last.Kernel == nil {
		return banger.Kernel{}, err
	}
	return *last.Kernel, nil
}

// DeleteKernel removes a kernel and gives its record. Errors: ErrConflict while a VM uses it.
func (c *Client) DeleteKernel(ctx context.Context, name string) (banger.Kernel, error) {
	return get[banger.Kernel](ctx, c, api.RouteKernelDelete, name)
}

// Status is what the daemon tells about itself.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return get[api.Status](ctx, c, api.RouteStatus, "")
}

// Settings is what the daemon goes by, and where it comes from.
func (c *Client) Settings(ctx context.Context) ([]banger.Setting, error) {
	return get[[]banger.Setting](ctx, c, api.RouteSettings, "")
}

// get asks and decodes the whole answer.
func get[T any](ctx context.Context, c *Client, route, ref string) (answer T, err error) {
	return ask[T](ctx, c, route, ref, nil)
}

// ask sends a body and decodes the whole answer.
func ask[T any](ctx context.Context, c *Client, route, ref string, body any) (answer T, err error) {
	return exchange[T](ctx, c, route, ref, nil, body)
}

// exchange sends query and body and decodes the whole answer.
func exchange[T any](ctx context.Context, c *Client, route, ref string, query url.Values, body any) (answer T, err error) {
	resp, err := c.do(ctx, route, ref, query, body)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, unavailable(ctx, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // the connection is used again
	return answer, nil
}

// stream is events for what ends with a VM.
func (c *Client) stream(ctx context.Context, route, ref string, query url.Values, body any, progress banger.ProgressFunc) (api.VMDetail, error) {
	last, err := c.events(ctx, route, ref, query, body, progress)
	if err != nil || last.VM == nil {
		return api.VMDetail{}, err
	}
	return *last.VM, nil
}

// events asks and follows the events to the last one.
func (c *Client) events(ctx context.Context, route, ref string, query url.Values, body any, progress banger.ProgressFunc) (last api.Event, err error) {
	resp, err := c.do(ctx, route, ref, query, body)
	if err != nil {
		return last, err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var event api.Event
		if err := dec.Decode(&event); err != nil {
			lost := unavailable(ctx, err)
			lost.OpID = resp.Header.Get(api.OpIDHeader)
			return last, lost
		}
		switch {
		case event.Progress != nil:
			progress.Report(*event.Progress)
		case event.Error != nil:
			return last, event.Error.Decode()
		case event != api.Event{}:
			_, _ = io.Copy(io.Discard, resp.Body)
			return event, nil
		}
	}
}

// param is a query that holds name when it is set.
func param(name string, set bool) url.Values {
	if !set {
		return nil
	}
	return url.Values{name: {strconv.FormatBool(true)}}
}

// do sends one request and turns every answer but 200 into an error.
func (c *Client) do(ctx context.Context, route, ref string, query url.Values, body any) (*http.Response, error) {
	method, path, _ := strings.Cut(route, " ")
	path = strings.Replace(path, "{ref}", url.PathEscape(ref), 1)
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	payload, raw := body.(io.Reader)
	if body != nil && !raw {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://bangerd"+path, payload)
	if err != nil {
		return nil, banger.Invalidf("%q is no VM reference", ref)
	}
	req.Header.Set(api.VersionHeader, strconv.Itoa(api.Version))
	resp, err := c.http.Do(req)
	if onlyAsks(route) && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)) {
		if req.GetBody != nil {
			req.Body, _ = req.GetBody() // never fails: it is in memory
		}
		resp, err = c.http.Do(req) // the daemon died as we connected; to ask again changes nothing
	}
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var wire banger.ErrorBody
	if err := json.NewDecoder(resp.Body).Decode(&wire); err != nil || wire.Message == "" {
		return nil, &banger.Error{Kind: banger.ErrUnsupported, Op: "ask the daemon", Err: fmt.Errorf("it answered %s to %s", resp.Status, route),
			Hint: "a daemon of another version may be running: banger daemon stop"}
	}
	return nil, wire.Decode()
}

// onlyAsks tells requests that change nothing.
func onlyAsks(route string) bool {
	return strings.HasPrefix(route, http.MethodGet+" ") || route == api.RouteVMResolve || route == api.RouteVMWait
}

// unavailable is what a broken conversation with the daemon means to the caller.
func unavailable(ctx context.Context, err error) *banger.Error {
	if cause := ctx.Err(); cause != nil {
		return &banger.Error{Kind: banger.ErrInterrupted, Err: cause}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the daemon ended before it answered")
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "ask the daemon", Err: err, Hint: "banger daemon status"}
}
