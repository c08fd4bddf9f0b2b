// Package download fetches files whose size and digest are known before, over connections that break.
//
// What has come is in a file beside the final place and is gone on with, by a later call too. Only a file that is whole and has the
// digest appears in its place.
package download

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"time"

	"banger"
)

const (
	defaultIdle  = time.Minute
	defaultPause = 200 * time.Millisecond
	// attempts bounds how often in a row a server may give (nearly) nothing.
	attempts = 6
	// enough is how many bytes make an attempt one that got on.
	enough       = 4 << 10
	maxRedirects = 10
	bufferSize   = 64 << 10
)

// Partial is the ending of a file that has not all come.
const Partial = ".partial"

// File is one file to fetch.
type File struct {
	URL       string
	SizeBytes int64
	SHA256    string // hexadecimal
	Path      string // where it appears; its part is in Path+Partial. Nobody else may work on it
}

// Client fetches files.
type Client struct {
	HTTP  *http.Client
	Idle  time.Duration // how long a server may give nothing; 0: a minute
	Pause time.Duration // before the first repetition, doubled for each further one; 0: 200 ms
}

// Fetch gets a file that is not there yet. report is told how many of its bytes have come; the number falls when a server makes it begin anew.
// The file's name is not durable. On error the part stays, unless it is wrong.
// Errors: ErrCorrupt for another size or digest; ErrNotFound, ErrRefused and ErrUnavailable by the server's answer; those of the client's transport.
func (c Client) Fetch(ctx context.Context, file File, report func(done int64)) error {
	part, err := os.OpenFile(file.Path+Partial, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	t := &transfer{File: file, part: part, sum: sha256.New(), report: report}
	err = c.fetch(ctx, t)
	if err := errors.Join(err, part.Close()); err != nil {
		if errors.Is(err, banger.ErrCorrupt) {
			err = errors.Join(err, os.Remove(part.Name()))
		}
		return fmt.Errorf("download %s: %w", file.URL, err)
	}
	return os.Rename(part.Name(), file.Path)
}

// transfer is a file that comes.
type transfer struct {
	File
	part   *os.File
	sum    hash.Hash
	done   int64
	report func(done int64)
}

func (c Client) fetch(ctx context.Context, t *transfer) error {
	if err := t.resume(); err != nil {
		return err
	}
	old := t.done > 0
	err := c.rest(ctx, t)
	if old && errors.Is(err, banger.ErrCorrupt) { // the old part may be what is wrong
		if err := t.restart(); err != nil {
			return err
		}
		err = c.rest(ctx, t)
	}
	return err
}

// resume takes in what an earlier call left.
func (t *transfer) resume() error {
	n, err := io.Copy(t.sum, io.LimitReader(t.part, t.SizeBytes+1))
	if err != nil {
		return err
	}
	if n > t.SizeBytes {
		return t.restart()
	}
	t.done = n
	t.report(n)
	return nil
}

func (t *transfer) restart() error {
	t.sum.Reset()
	t.done = 0
	t.report(0)
	_, err := t.part.Seek(0, io.SeekStart)
	return errors.Join(err, t.part.Truncate(0))
}

// rest asks again and again for what is missing.
func (c Client) rest(ctx context.Context, t *transfer) error {
	pause := c.Pause
	if pause == 0 {
		pause = defaultPause
	}
	for failures := 0; t.done < t.SizeBytes; {
		before := t.done
		err := c.attempt(ctx, t)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case isFinal(err):
			return err
		case t.done-before >= enough:
			failures = 0
			continue
		case err == nil:
			err = io.ErrUnexpectedEOF
		}
		if failures++; failures == attempts {
			return &banger.Error{Kind: banger.ErrUnavailable, Err: err}
		}
		select {
		case <-time.After(pause << (failures - 1)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if got := hex.EncodeToString(t.sum.Sum(nil)); got != t.SHA256 {
		return fmt.Errorf("%w: it has digest sha256:%s, want sha256:%s", banger.ErrCorrupt, got, t.SHA256)
	}
	return nil
}

// finalError is one that another attempt does not mend.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func isFinal(err error) bool {
	var final finalError
	return errors.As(err, &final) || banger.KindName(err) != "internal"
}

// attempt reads what one answer gives.
func (c Client) attempt(ctx context.Context, t *transfer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // says more
		}
		cancel(nil)
	}()
	idle := c.Idle
	if idle == 0 {
		idle = defaultIdle
	}
	timer := time.AfterFunc(idle, func() { cancel(fmt.Errorf("the server gave nothing for %s", idle)) })
	defer timer.Stop()
	body, err := c.ask(ctx, t)
	if err != nil {
		return err
	}
	defer body.Close()
	buffer := make([]byte, bufferSize)
	for {
		n, err := body.Read(buffer)
		timer.Reset(idle)
		if int64(n) > t.SizeBytes-t.done {
			return fmt.Errorf("%w: it has more than the %d bytes that were announced", banger.ErrCorrupt, t.SizeBytes)
		}
		if _, err := t.part.Write(buffer[:n]); err != nil {
			return finalError{err}
		}
		t.sum.Write(buffer[:n])
		if n > 0 {
			t.done += int64(n)
			t.report(t.done)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ask gives the bytes from t.done on; a server that begins with the first byte makes t begin anew.
func (c Client) ask(ctx context.Context, t *transfer) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL, nil)
	if err != nil {
		return nil, finalError{err}
	}
	req.Header.Set("Accept-Encoding", "identity") // the digest is of what is stored
	if t.done > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.done))
	}
	client := *c.HTTP
	client.CheckRedirect = func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		return nil
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := t.accept(answer); err != nil {
		answer.Body.Close()
		return nil, err
	}
	return answer.Body, nil
}

// accept looks at an answer's header.
func (t *transfer) accept(answer *http.Response) error {
	switch code := answer.StatusCode; {
	case code == http.StatusPartialContent && t.done > 0:
		var first int64
		if _, err := fmt.Sscanf(answer.Header.Get("Content-Range"), "bytes %d-", &first); err != nil || first != t.done {
			return errors.Join(errors.New("the server gave another part of the file"), t.restart())
		}
	case code == http.StatusOK:
		if t.done > 0 {
			if err := t.restart(); err != nil {
				return finalError{err}
			}
		}
	case code == http.StatusRequestedRangeNotSatisfiable && t.done > 0:
		return errors.Join(errors.New("the server has no more of the file"), t.restart())
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return fmt.Errorf("the server answered %s", answer.Status)
	default:
		kind := banger.ErrUnavailable
		switch code {
		case http.StatusNotFound, http.StatusGone:
			kind = banger.ErrNotFound
		case http.StatusUnauthorized, http.StatusForbidden:
			kind = banger.ErrRefused
		}
		return &banger.Error{Kind: kind, Err: fmt.Errorf("the server answered %s", answer.Status)}
	}
	if answer.ContentLength >= 0 && answer.ContentLength != t.SizeBytes-t.done {
		return fmt.Errorf("%w: it has %d bytes, want %d", banger.ErrCorrupt, t.done+answer.ContentLength, t.SizeBytes)
	}
	return nil
}
