package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"banger"
)

// DebianMirror is Debian's own archive, which is near everywhere. Its security updates are beside it, below "-security".
const DebianMirror = "http://deb.debian.org/debian"

const (
	dialTimeout  = 10 * time.Second
	maxRedirects = 10
	getAttempts  = 4
	defaultPause = 200 * time.Millisecond
)

// NewClient makes a client for mirrors. proxy is a URL; empty: the environment's (http_proxy, https_proxy, no_proxy).
// Errors: ErrInvalid.
func NewClient(proxy string) (*http.Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true, DisableCompression: true, IdleConnTimeout: time.Minute}
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" || u.Host == "" {
			return nil, &banger.Error{Kind: banger.ErrInvalid, Op: "proxy", Err: errors.New("want an http, https or socks5 URL"), Hint: "for example: http://proxy.example:3128"}
		}
		transport.Proxy = http.ProxyURL(u)
	}
	return &http.Client{Transport: transport, CheckRedirect: checkRedirect}, nil
}

func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("the mirror leads on to %s, after %d redirects", r.URL.Redacted(), len(via)-1)}
	}
	return nil
}

// errMissing is a server's word that it does not have a file.
var errMissing = errors.New("the server does not have it")

// get gives a small file that says itself whether it is whole. Errors: ErrUnavailable; errMissing.
func (a *Archive) get(ctx context.Context, from string) ([]byte, error) {
	pause := a.Pause
	if pause == 0 {
		pause = defaultPause
	}
	for attempt := 1; ; attempt++ {
		text, again, err := a.getOnce(ctx, from)
		switch {
		case err == nil:
			return text, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !again || attempt == getAttempts:
			return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "get", Subject: from, Err: err}
		}
		select {
		case <-time.After(pause << (attempt - 1)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// getOnce tells with its error whether another attempt may do better.
func (a *Archive) getOnce(ctx context.Context, from string) (text []byte, again bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fmt.Errorf("the server gave nothing for %s", a.idle())
	timer := time.AfterFunc(a.idle(), func() { cancel(silent) })
	defer timer.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, false, err
	}
	req.Header.Set("User-Agent", "banger")
	answer, err := a.HTTP.Do(req)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err // the URL is in ours
		}
		if context.Cause(ctx) == silent {
			return nil, true, silent
		}
		dial, ok := errors.AsType[*net.OpError](err)
		return nil, banger.KindName(err) == "internal" && (!ok || dial.Op != "dial" && dial.Op != "proxyconnect"), err
	}
	defer answer.Body.Close()
	switch code := answer.StatusCode; {
	case code == http.StatusNotFound || code == http.StatusGone:
		return nil, false, errMissing
	case code != http.StatusOK:
		return nil, code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout, fmt.Errorf("the server answered %s", answer.Status)
	}
	text, err = io.ReadAll(io.LimitReader(&watched{answer.Body, timer, a.idle()}, maxRelease+1))
	switch {
	case err != nil && context.Cause(ctx) == silent:
		return nil, true, silent
	case err != nil:
		return nil, true, err
	case len(text) > maxRelease:
		return nil, false, fmt.Errorf("it has more than %s", banger.FormatSize(maxRelease))
	}
	return text, false, nil
}

// watched puts a timer off whenever something comes.
type watched struct {
	r     io.Reader
	timer *time.Timer
	idle  time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.timer.Reset(w.idle)
	return n, err
}
