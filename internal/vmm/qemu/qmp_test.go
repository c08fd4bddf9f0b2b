package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"banger"
)

// fakeQEMU answers commands by script: it gets each decoded command and writes what it wants.
type fakeQEMU struct {
	conn  net.Conn
	lines *bufio.Scanner
}

type command struct {
	Execute string
	ID      string
}

func (f *fakeQEMU) say(format string, args ...any) { fmt.Fprintf(f.conn, format+"\r\n", args...) }

func (f *fakeQEMU) next() (c command) {
	if f.lines.Scan() {
		json.Unmarshal(f.lines.Bytes(), &c)
	}
	return c
}

// newFake gives a client that is connected to a fake and has its capabilities, and the events that it hears.
func newFake(t *testing.T) (*qmpClient, *fakeQEMU, func() []string) {
	t.Helper()
	ours, theirs := net.Pipe()
	f := &fakeQEMU{conn: theirs, lines: bufio.NewScanner(theirs)}
	t.Cleanup(func() { theirs.Close() })
	go func() {
		f.say(`{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}`)
		f.say(`{"return": {}, "id": %q}`, f.next().ID)
	}()
	var mu sync.Mutex
	var events []string
	c, err := newQMP(t.Context(), ours, func(e qmpEvent) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e.Name+" "+e.Data.Reason)
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, f, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(events) }
}

func TestQMPMatchesAnswers(t *testing.T) {
	c, f, events := newFake(t)
	go func() {
		first, second := f.next(), f.next()
		f.say(`{"event": "STOP", "data": {}, "timestamp": {"seconds": 1}}`)
		f.say(`{"return": {"of": "nobody"}, "id": "999"}`)
		f.say(`{"return": {"of": %q}, "id": %q}`, second.Execute, second.ID)
		for range 1000 { // events that nobody waits for hold nothing up
			f.say(`{"event": "RTC_CHANGE", "data": {"offset": 1, "reason": 5}}`)
		}
		f.say(`{"return": {"of": %q}, "id": %q}`, first.Execute, first.ID)
	}()
	var wg sync.WaitGroup
	for _, name := range []string{"query-a", "query-b"} {
		wg.Go(func() {
			answer, err := c.ask(t.Context(), name)
			if want := `{"of": "` + name + `"}`; err != nil || string(answer) != want {
				t.Errorf("ask(%s) = %s, %v, want %s", name, answer, err, want)
			}
		})
	}
	wg.Wait()
	if got := events(); len(got) != 1001 || got[0] != "STOP " {
		t.Errorf("%d events, first %q", len(got), got[:1])
	}
}

func TestQMPFailures(t *testing.T) {
	c, f, events := newFake(t)
	go func() {
		f.say(`{"error": {"class": "CommandNotFound", "desc": "no such thing"}, "id": %q}`, f.next().ID)
		f.say(`{"id": %q}`, f.next().ID)
		f.next()
		f.next()
		f.say(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`)
		f.conn.Close()
	}()
	var qemu *qmpError
	if err := c.do(t.Context(), "x"); !errors.As(err, &qemu) || qemu.Class != "CommandNotFound" {
		t.Errorf("a refused command = %v, want *qmpError", err)
	}
	if err := c.do(t.Context(), "x"); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("an answer without content = %v, want ErrCorrupt", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.do(ctx, "x"); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("a context that ended = %v, want ErrInterrupted", err)
	}
	if err := c.do(t.Context(), "x"); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("a QEMU that goes = %v, want ErrUnavailable", err)
	}
	<-c.done
	if got := events(); !slices.Equal(got, []string{"SHUTDOWN guest-shutdown"}) {
		t.Errorf("events = %q: the one before the end is lost", got)
	}
	if err := c.do(t.Context(), "x"); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("a QEMU that has gone = %v, want ErrUnavailable", err)
	}
}

func TestQMPGreeting(t *testing.T) {
	for name, greeting := range map[string]string{
		"no greeting": `{"return": {}}` + "\n",
		"no JSON":     "SSH-2.0-x\n",
		"closed":      "",
		"endless":     strings.Repeat(" ", maxQMPLine+1<<16),
	} {
		ours, theirs := net.Pipe()
		go func() {
			theirs.Write([]byte(greeting))
			theirs.Close()
		}()
		if _, err := newQMP(t.Context(), ours, nil); err == nil {
			t.Errorf("%s: newQMP succeeded", name)
		}
		theirs.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	if _, err := newQMP(ctx, ours, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("newQMP with a dead context = %v", err)
	}
}

// FuzzReadQMP: whatever comes, each call consumes a whole line or ends, and what is accepted is one JSON object.
func FuzzReadQMP(f *testing.F) {
	f.Add([]byte(`{"QMP": {}}` + "\r\n"))
	f.Add([]byte(`{"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}` + "\n" + `{"return": 1, "id": "1"}` + "\n"))
	f.Add([]byte("{\"id\": 7}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), 16)
		for _, line := range bytes.SplitAfter(data, []byte("\n")) {
			m, err := readQMP(r)
			if !bytes.HasSuffix(line, []byte("\n")) {
				if err == nil {
					t.Errorf("readQMP accepted the unfinished line %q", line)
				}
				return
			}
			if err != nil {
				if json.Valid(line) && !errors.Is(err, banger.ErrCorrupt) {
					t.Errorf("readQMP(%q) = %v", line, err)
				}
				continue
			}
			var any map[string]json.RawMessage
			if json.Unmarshal(line, &any) != nil && string(bytes.TrimSpace(line)) != "null" {
				t.Errorf("readQMP(%q) = %+v, want an error", line, m)
			}
		}
	})
}
