package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"

	"banger"
	"banger/internal/tree"
)

// Request is the first line on a connection to the guest's port for files. Exactly one field is set. Paths are bytes: names in a guest
// need not be text.
type Request struct {
	Get *Get `json:"get,omitempty"` // → Answer with an Origin, then a stream
	Put *Put `json:"put,omitempty"` // → Answer, then the client's stream, then another Answer with a Report

	Walk   *Walk   `json:"walk,omitempty"`   // → Answer, then a stream
	Read   *Read   `json:"read,omitempty"`   // then the client's stream → Answer with an Origin, then a stream
	Remove *Remove `json:"remove,omitempty"` // then the client's stream → Answer with a Report
	Sync   *Sync   `json:"sync,omitempty"`   // → Answer, then the client's stream, then another Answer with Synced
	Change *Change `json:"change,omitempty"` // → Answer, then two streams of the client's, then another Answer with a Report

	Watch *Watch `json:"watch,omitempty"` // → Answer, then what package twoway has
}

// Watch asks to keep a directory alike on both sides.
type Watch struct {
	Path    []byte `json:"path"`    // absolute
	Version int    `json:"version"` // [WatchVersion]
}

// WatchVersion is of the conversation that follows a Watch.
const WatchVersion = 1

// Get asks for a file or tree.
type Get struct {
	Path   []byte `json:"path"` // absolute
	Follow bool   `json:"follow,omitempty"`
}

// Put brings a file or tree.
type Put struct {
	Path    []byte `json:"path"` // absolute: where Origin goes
	Origin  Origin `json:"origin"`
	Archive bool   `json:"archive,omitempty"`
	Parents bool   `json:"parents,omitempty"` // the directories above Path are made when they are missing
}

// Answer is a line of the side that was asked.
type Answer struct {
	Error  *banger.ErrorBody `json:"error,omitempty"`
	Origin *Origin           `json:"origin,omitempty"`
	Report *Report           `json:"report,omitempty"`
	Synced *Synced           `json:"synced,omitempty"`
}

// maxLine bounds a line, in bytes.
const maxLine = 128 << 10

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// readLine reads a JSON line; what follows it stays in r.
func readLine(r *bufio.Reader, v any) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxLine {
			return banger.Invalidf("a line of more than %d bytes", maxLine)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return cutOff(err)
		}
		if err := json.Unmarshal(bytes.TrimSpace(line), v); err != nil {
			return &banger.Error{Kind: banger.ErrInvalid, Op: "decode line", Err: err}
		}
		return nil
	}
}

func readAnswer(r *bufio.Reader) (a Answer, err error) {
	if err := readLine(r, &a); err != nil {
		return a, err
	}
	if a.Error != nil {
		return a, a.Error.Decode()
	}
	return a, nil
}

// Refuse answers with an error.
func Refuse(w io.Writer, err error) error {
	body := banger.EncodeError(err, "")
	return writeLine(w, Answer{Error: &body})
}

// Send answers a Get. The error is that of src, which the stream's end tells of, or of w. left may name what src leaves out by itself.
func Send(w io.Writer, o Origin, src tree.Source, left *Report) error {
	if err := writeLine(w, Answer{Origin: &o}); err != nil {
		return err
	}
	return send(w, src, left)
}

// send writes a stream. The error is that of src, or one that the other end is gone.
func send(w io.Writer, src tree.Source, report *Report) error {
	if report == nil {
		report = &Report{}
	}
	out := newStreamWriter(w)
	err := tree.WriteTar(out, tree.Filter(src, func(e *tree.Entry) bool {
		if e.Kind == tree.Socket {
			report.leave(e.Path)
			return false
		}
		report.Entries++
		report.Bytes += e.Size
		if content, ok := e.Content.(tree.HoleReader); ok {
			e.Content = &holes{HoleReader: content, size: e.Size}
		}
		return true
	}))
	last := end{Report: *report}
	if err != nil {
		err = describe(err, "")
		body := banger.EncodeError(err, "")
		last.Error = &body
	}
	if out.finish(last); out.err != nil {
		return cutOff(out.err)
	}
	return err
}

// Incoming is a tree on its way from the side that was asked.
type Incoming struct {
	Origin Origin
	stream *streamReader
}

// Receive reads the answer to a Get. Errors: those of the other side; ErrUnavailable when it is gone; ErrCorrupt.
func Receive(r io.Reader) (*Incoming, error) {
	in := bufio.NewReaderSize(r, readAhead)
	answer, err := readAnswer(in)
	if err != nil {
		return nil, err
	}
	if answer.Origin == nil {
		return nil, &banger.Error{Kind: banger.ErrCorrupt, Err: errors.New("an answer without what comes")}
	}
	return &Incoming{*answer.Origin, &streamReader{r: in}}, answer.Origin.check()
}

// Source yields what comes, to be read once: nothing but the origin and what is below it, up to the end that the sender tells of.
func (in *Incoming) Source() tree.Source { return ended(in.stream, in.Origin) }

// Left is what the sender says that it left out, once Source is at its end.
func (in *Incoming) Left() Report {
	if in.stream.got == nil {
		return Report{}
	}
	return in.stream.got.Report
}

func ended(stream *streamReader, o Origin) tree.Source { return limited(stream, o, Limits) }

func limited(stream *streamReader, o Origin, limits tree.Limits) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for e, err := range tree.FromTar(stream, limits) {
			if err == nil && !o.holds(e) {
				e, err = tree.Entry{}, &banger.Error{Kind: banger.ErrCorrupt, Err: banger.Invalidf("%.300q is no part of %.300q", e.Path, o.Name)}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		if _, err := io.Copy(io.Discard, stream); err != nil {
			yield(tree.Entry{}, err)
		}
	}
}

// holds tells that an entry is the origin or lies below it.
func (o Origin) holds(e tree.Entry) bool {
	name := string(o.Name)
	if name == "" {
		return true
	}
	if e.Path == name {
		return (e.Kind == tree.Dir) == o.Dir
	}
	return o.Dir && len(e.Path) > len(name) && e.Path[:len(name)] == name && e.Path[len(name)] == '/'
}

// Ask sends a Get to the guest's port for files.
func Ask(conn net.Conn, get Get) (*Incoming, error) {
	if err := writeLine(conn, Request{Get: &get}); err != nil {
		return nil, cutOff(err)
	}
	return Receive(conn)
}

// AskWatch sends a Watch to the guest's port for files; what the guest says next stays in the reader. Errors: ErrUnsupported for an agent that
// knows no Watch, or another version of it.
func AskWatch(conn net.Conn, dir string) (*bufio.Reader, error) {
	if err := writeLine(conn, Request{Watch: &Watch{[]byte(dir), WatchVersion}}); err != nil {
		return nil, cutOff(err)
	}
	r := bufio.NewReaderSize(conn, readAhead)
	_, err := readAnswer(r)
	if errors.Is(err, banger.ErrInvalid) { // the request has one field, and that is unknown
		err = &banger.Error{Kind: banger.ErrUnsupported, Op: "watch", Subject: dir, Err: errors.New("the agent in the VM is older than this banger"), Hint: "banger vm restart gives the VM the present one"}
	}
	return r, err
}

// cleanUpPatience is what a guest gets to remove what it has of a copy that was interrupted.
const cleanUpPatience = 15 * time.Second

// Bring sends a Put and its tree to the guest's port for files, which conn is a connection to, and closes it. It tells what the guest made
// of them. The end of ctx ends the sending; the guest then has removed what came when Bring returns, if it answers in time.
// Errors: those of src and of the guest; ErrInterrupted; ErrUnavailable when the guest is gone.
func Bring(ctx context.Context, conn Conn, put Put, src tree.Source) (Report, error) {
	return reported(deliver(ctx, conn, Request{Put: &put}, nil, src))
}

// reported gives the report of what was delivered.
func reported(answer Answer, left Report, err error) (Report, error) {
	if err == nil && answer.Report == nil {
		err = &banger.Error{Kind: banger.ErrCorrupt, Err: errors.New("an answer without a report")}
	}
	if err != nil {
		return Report{}, err
	}
	report := *answer.Report
	report.Skipped += left.Skipped
	report.Left = append(report.Left, left.Left...)
	return report, nil
}

// deliver sends a request and what belongs to it: steps, unless they are nil, and a tree. It gives the last answer, and what src leaves out.
func deliver(ctx context.Context, conn Conn, req Request, steps []Step, src tree.Source) (answer Answer, left Report, err error) {
	defer conn.Close()
	if err := writeLine(conn, req); err != nil {
		return answer, left, cutOff(err)
	}
	defer context.AfterFunc(ctx, func() {
		_ = conn.CloseWrite() // if it fails, the other end is gone
		_ = conn.SetReadDeadline(time.Now().Add(cleanUpPatience))
	})()
	answer, err = push(conn, steps, src, &left)
	if ctx.Err() != nil && err != nil {
		err = &banger.Error{Kind: banger.ErrInterrupted, Op: "copy", Err: context.Cause(ctx)}
	}
	return answer, left, err
}

func push(conn Conn, steps []Step, src tree.Source, left *Report) (Answer, error) {
	r := bufio.NewReader(conn)
	if _, err := readAnswer(r); err != nil {
		return Answer{}, err
	}
	sent := make(chan error, 1)
	go func() {
		var err error
		if steps != nil {
			err = sendSteps(conn, steps)
		}
		if err == nil {
			err = send(conn, src, left)
		}
		sent <- err
	}()
	answer, err := readAnswer(r)
	conn.Close() // sending ends, wherever it is
	if sendErr := <-sent; sendErr != nil && !errors.Is(sendErr, errGone) {
		err = sendErr // the guest has it from us
	}
	return answer, err
}

// Conn is a connection of which one direction can end before the other.
type Conn interface {
	net.Conn
	CloseWrite() error
}
