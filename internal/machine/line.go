package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"banger"
)

// maxLine bounds a request's and an answer's line, in bytes.
const maxLine = 1 << 20

// ReadRequest reads a client's first line. Errors: io.EOF when there is none; ErrInvalid for a line that is too long, no
// JSON, or does not ask for exactly one thing.
func ReadRequest(r *bufio.Reader) (Request, error) {
	var req Request
	if err := readLine(r, &req); err != nil {
		return Request{}, err
	}
	set := 0
	for _, field := range []bool{req.Status != nil, req.Ready != nil, req.Init != nil, req.Stats != nil, req.Wait != nil, req.Exec != nil, req.Console != nil,
		req.Connect != nil, req.Shutdown != nil, req.Ports != nil, req.Attach != nil, req.Signal != nil, req.Rename != nil, req.SetNet != nil, req.NetLog != nil} {
		if field {
			set++
		}
	}
	if set != 1 {
		return Request{}, banger.Invalidf("machine request sets %d fields, want one", set)
	}
	return req, nil
}

// WriteResponse writes the first line of an answer.
func WriteResponse(w io.Writer, resp Response) error { return writeLine(w, resp) }

// readLine reads a JSON line; what follows it stays in r.
func readLine(r *bufio.Reader, v any) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return banger.Invalidf("machine line longer than %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		if err := json.Unmarshal(line, v); err != nil {
			return &banger.Error{Kind: banger.ErrInvalid, Op: "decode machine line", Err: err}
		}
		return nil
	}
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode machine line: %w", err)
	}
	if len(line) >= maxLine {
		return banger.Invalidf("machine line of %d bytes, the limit is %d", len(line), maxLine)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
