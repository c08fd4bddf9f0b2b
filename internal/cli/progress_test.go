package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"banger"
)

// clock is a time that only the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

var story = []struct {
	after time.Duration
	event banger.Progress
}{
	{0, banger.Progress{Stage: "image", Text: "building image debian"}},
	{0, banger.Progress{Stage: "kernel", Text: "fetching kernel"}},
	{time.Second, banger.Progress{Stage: "image", Text: "building image debian", Detail: "unpacking git"}},
	{2 * time.Second, banger.Progress{Stage: "kernel", Text: "fetching kernel", Bytes: 3 << 20, Total: 12 << 20}},
	{9 * time.Second, banger.Progress{Stage: "image", Text: "building image debian", Detail: "writing \x1b[31m", Bytes: 5 << 20}},
	{0, banger.Progress{Stage: "kernel", Text: "fetching kernel", Done: true, Elapsed: 12 * time.Second}},
	{29 * time.Second, banger.Progress{Stage: "image", Text: "building image debian", Done: true, Elapsed: 41 * time.Second}},
	{0, banger.Progress{Stage: "disk", Text: "applying work seed"}},
	{20 * time.Millisecond, banger.Progress{Stage: "disk", Text: "applying work seed", Done: true, Elapsed: 20 * time.Millisecond}},
}

func TestPlainProgress(t *testing.T) {
	var b bytes.Buffer
	c := &clock{}
	p := &plainProgress{w: &b, now: c.now, told: map[string]told{}}
	for _, s := range story {
		c.t = c.t.Add(s.after)
		p.report(s.event)
	}
	want := `image: building image debian
kernel: fetching kernel
image: building image debian: writing \x1b[31m (5 MiB)
kernel: done in 12.0s
image: done in 41.0s
disk: applying work seed
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &b, want)
	}
}

func TestPlainProgressVerbose(t *testing.T) {
	var b bytes.Buffer
	p := &plainProgress{w: &b, now: (&clock{}).now, verbose: true, told: map[string]told{}}
	for _, s := range story {
		p.report(s.event)
	}
	for _, line := range []string{"image: building image debian: unpacking git\n", "kernel: fetching kernel (3 MiB of 12 MiB)\n", "disk: done in 0.0s\n"} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no line %q in:\n%s", line, &b)
		}
	}
}

// screen is a terminal that knows "\r", "\n", cursor up and erase below: what liveProgress needs.
type screen struct {
	lines    []string
	row, col int
}

func (s *screen) Write(p []byte) (int, error) {
	text := string(p)
	for len(text) > 0 {
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			s.fill()
			s.lines[s.row] = s.lines[s.row][:s.col]
			s.lines = s.lines[:s.row+1]
			text = text[3:]
		case strings.HasPrefix(text, "\x1b["):
			n := 0
			for text = text[2:]; text[0] != 'A'; text = text[1:] {
				n = n*10 + int(text[0]-'0')
			}
			s.row -= n
			text = text[1:]
		case text[0] == '\r':
			s.col, text = 0, text[1:]
		case text[0] == '\n':
			s.row, s.col, text = s.row+1, 0, text[1:]
		default:
			s.fill()
			s.lines[s.row] = s.lines[s.row][:s.col] + text[:1]
			s.col, text = s.col+1, text[1:]
		}
	}
	return len(p), nil
}

func (s *screen) fill() {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
}

func (s *screen) String() string { return strings.TrimRight(strings.Join(s.lines, "\n"), "\n") }

func TestLiveProgress(t *testing.T) {
	s, c := &screen{}, &clock{}
	p := &liveProgress{w: s, now: c.now, width: func() int { return 60 }, paint: func(_, text string) string { return text }}
	var shots []string
	for _, e := range story {
		c.t = c.t.Add(e.after)
		p.report(e.event)
		p.draw()
		shots = append(shots, s.String())
	}
	p.erase()
	want := map[int]string{
		1: "  image    building image debian  0.0s\n  kernel   fetching kernel  0.0s",
		2: "  image    building image debian: unpacking git  1.0s\n  kernel   fetching kernel  1.0s",
		4: "  image    building image debian: writing \\x1b[31...  12.0s\n  kernel   fetching kernel (3 MiB of 12 MiB)  12.0s",
		5: "  kernel   fetching kernel  12.0s\n  image    building image debian: writing \\x1b[31...  12.0s",
		7: "  kernel   fetching kernel  12.0s\n  image    building image debian  41.0s\n  disk     applying work seed  0.0s",
	}
	for i, text := range want {
		if shots[i] != text {
			t.Errorf("after event %d:\n%s\nwant:\n%s", i, shots[i], text)
		}
	}
	if got := s.String(); got != "  kernel   fetching kernel  12.0s\n  image    building image debian  41.0s" {
		t.Errorf("at the end:\n%s", got)
	}
}
