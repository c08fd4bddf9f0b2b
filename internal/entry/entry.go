// Package entry is the one HTTP address through which a browser reaches every port of every VM: http://PORT.NAME.localhost:N.
//
// Browsers take all names below localhost for this computer, so that nothing has to be set up. Each request goes to the VM that its Host
// names, whatever the connection carried before. A page of another site that gets its name to lead here (DNS rebinding) sends that name
// and is told that it is misdirected.
package entry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"banger"
)

const (
	// DefaultPort is where the entry is unless that is taken.
	DefaultPort = 42080

	maxHead     = 32 << 10 // bytes of a request's line and headers
	headTimeout = 10 * time.Second
	dialTimeout = 30 * time.Second
	idleTimeout = 2 * time.Minute // of a browser's connection
	keptIdle    = 30 * time.Second
	maxKept     = 16 // idle connections to one port of a VM
	maxConns    = 512
)

// Config wires an Entry.
type Config struct {
	// Find gives the running VM of that name. Errors: ErrNotFound for an unknown VM; ErrConflict when it does not run.
	Find func(ctx context.Context, name string) (banger.VMID, error)
	// Dial connects to a port of a VM. Errors: ErrUnavailable when nobody listens.
	Dial func(ctx context.Context, id banger.VMID, port uint16) (net.Conn, error)
	Log  *slog.Logger
}

// Entry takes connections on one address of the loopback.
type Entry struct {
	Config
	listener net.Listener
	proxy    httputil.ReverseProxy
}

// Listen begins to serve on 127.0.0.1 and port, or on another one when that is taken: see [Entry.Address].
func Listen(cfg Config, port int) (*Entry, error) {
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "listen for HTTP", Err: err}
	}
	e := &Entry{Config: cfg, listener: netutil.LimitListener(listener, maxConns)}
	quiet := slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)
	e.proxy = httputil.ReverseProxy{
		Rewrite:       rewrite,
		FlushInterval: -1, // events come one by one
		ErrorLog:      quiet,
		ErrorHandler:  func(w http.ResponseWriter, r *http.Request, err error) { refuse(w, fmt.Errorf("%s: %w", r.Host, err)) },
		Transport: &http.Transport{DialContext: e.dial, DisableCompression: true, MaxIdleConnsPerHost: maxKept, IdleConnTimeout: keptIdle,
			MaxResponseHeaderBytes: maxHead},
	}
	server := &http.Server{Handler: e, ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead, ErrorLog: quiet}
	go func() {
		if err := server.Serve(e.listener); !errors.Is(err, net.ErrClosed) {
			cfg.Log.Warn("serve HTTP", "err", err)
		}
	}()
	return e, nil
}

// Address is where the entry is.
func (e *Entry) Address() string { return e.listener.Addr().String() }

// Close takes no more connections; those that go on end with the process.
func (e *Entry) Close() error { return e.listener.Close() }

// portKey is under what a request's context has the address of the port that it goes to.
type portKey struct{}

// ServeHTTP leads one request to the VM that its Host names.
func (e *Entry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, port, ok := parseHost(r.Host)
	if !ok {
		answer(w, http.StatusMisdirectedRequest, fmt.Sprintf("%q is no port of a VM: want http://PORT.NAME.localhost", r.Host))
		return
	}
	id, err := e.Find(r.Context(), name)
	if err != nil {
		refuse(w, err)
		return
	}
	// A VM that comes to the name of another one has an id of its own: no connection that is kept leads to the wrong one.
	r = r.WithContext(context.WithValue(r.Context(), portKey{}, net.JoinHostPort(string(id), strconv.Itoa(int(port)))))
	_ = http.NewResponseController(w).EnableFullDuplex() // a server may answer before it has read all
	// What the guest's server does not say is not said in its name.
	w.Header()["Content-Type"], w.Header()["Date"] = nil, nil
	e.proxy.ServeHTTP(w, r)
}

// rewrite makes the request that goes to the guest: the one that came.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Context().Value(portKey{}).(string)
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} { // of a proxy in front of this one
		if values := r.In.Header[name]; values != nil {
			r.Out.Header[name] = values
		}
	}
}

// dial connects to the address that rewrite has put into the URL.
func (e *Entry) dial(ctx context.Context, _, address string) (net.Conn, error) {
	id, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return e.Dial(ctx, banger.VMID(id), uint16(port))
}

// refuse tells why a request reaches no server.
func refuse(w http.ResponseWriter, err error) {
	text := err.Error()
	if hint := banger.HintOf(err); hint != "" {
		text += "\nhint: " + hint
	}
	status := http.StatusBadGateway
	switch {
	case errors.Is(err, banger.ErrNotFound):
		status = http.StatusMisdirectedRequest
	case errors.Is(err, banger.ErrConflict):
		status = http.StatusServiceUnavailable
	}
	answer(w, status, text)
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "banger: %s\n", text)
}

// parseHost reads "3000.devbox.localhost:42080"; the port at the end does not matter.
func parseHost(host string) (name string, port uint16, ok bool) {
	if bare, _, err := net.SplitHostPort(host); err == nil {
		host = bare
	}
	host, ok = strings.CutSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), ".localhost")
	number, name, dotted := strings.Cut(host, ".")
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || !dotted || err != nil || n == 0 || number != strconv.FormatUint(n, 10) || banger.ValidateVMName(name) != nil {
		return "", 0, false
	}
	return name, uint16(n), true
}
