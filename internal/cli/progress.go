package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"banger"
)

const (
	redrawEvery  = 100 * time.Millisecond
	detailEvery  = 10 * time.Second // a plain line for what a long stage does
	worthTelling = time.Second      // a stage that ended sooner leaves no line
)

// progress gives what shows an operation's stages on standard error, and the function that ends the show. On a terminal the
// stages under way are lines that are drawn anew; elsewhere each begin and end is a line.
func (a *app) progress() (show banger.ProgressFunc, end func()) {
	if a.listener.Progress != nil {
		return a.listener.Progress, func() {}
	}
	if a.silent() {
		return nil, func() {}
	}
	fd, ok := terminal(a.Err)
	if !ok {
		p := &plainProgress{w: a.Err, now: a.now, verbose: a.verbose, told: map[string]told{}}
		return p.report, func() {}
	}
	p := &liveProgress{w: a.Err, now: a.now, verbose: a.verbose, paint: a.color(), width: func() int {
		width, _, err := term.GetSize(fd)
		if err != nil || width < 20 {
			return 80
		}
		return width
	}}
	stop := p.animate()
	return p.report, stop
}

// plainProgress writes lines that stay.
type plainProgress struct {
	w       io.Writer
	now     func() time.Time
	verbose bool

	mu   sync.Mutex
	told map[string]told // by stage
}

type told struct {
	at     time.Time
	detail string
}

func (p *plainProgress) report(e banger.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, begun := p.told[e.Stage]
	now := p.now()
	switch {
	case e.Notice:
		fmt.Fprintf(p.w, "%s: %s\n", escape(e.Stage), escape(e.Text))
		return
	case e.Done:
		delete(p.told, e.Stage)
		if e.Elapsed >= worthTelling || p.verbose {
			fmt.Fprintf(p.w, "%s: done in %s\n", escape(e.Stage), seconds(e.Elapsed))
		}
		return
	case !begun:
		fmt.Fprintf(p.w, "%s: %s\n", escape(e.Stage), describe(e))
	case describe(e) != before.detail && (p.verbose || now.Sub(before.at) >= detailEvery):
		fmt.Fprintf(p.w, "%s: %s\n", escape(e.Stage), describe(e))
	default:
		return
	}
	p.told[e.Stage] = told{at: now, detail: describe(e)}
}

// describe says what a stage does right now.
func describe(e banger.Progress) string {
	text := escape(e.Text)
	if e.Detail != "" {
		text = strings.TrimPrefix(text+": "+escape(e.Detail), ": ")
	}
	switch {
	case e.Total > 0:
		text += fmt.Sprintf(" (%s of %s)", banger.FormatSize(e.Bytes), banger.FormatSize(e.Total))
	case e.Bytes > 0:
		text += fmt.Sprintf(" (%s)", banger.FormatSize(e.Bytes))
	}
	return text
}

// liveProgress keeps one line for each stage under way at the bottom of the terminal.
type liveProgress struct {
	w       io.Writer
	now     func() time.Time
	width   func() int
	paint   func(sgr, text string) string
	verbose bool

	mu     sync.Mutex
	active []liveStage
	drawn  int // lines on the terminal that belong to us; the cursor is at the end of the last
	ended  bool
}

type liveStage struct {
	last  banger.Progress
	begun time.Time
}

func (p *liveProgress) report(e banger.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	i := slices.IndexFunc(p.active, func(s liveStage) bool { return s.last.Stage == e.Stage })
	switch {
	case e.Notice:
		p.erase()
		fmt.Fprintf(p.w, "  %-8s %s\n", escape(e.Stage), escape(e.Text))
		p.draw()
	case e.Done:
		if i >= 0 {
			p.active = slices.Delete(p.active, i, i+1)
		}
		if e.Elapsed >= worthTelling || p.verbose {
			p.erase()
			fmt.Fprintln(p.w, p.paint(dim, p.line(e, e.Elapsed)))
		}
		p.draw()
	case i < 0:
		p.active = append(p.active, liveStage{last: e, begun: p.now()})
		p.draw()
	default: // drawn by the next tick
		if e.Text == "" {
			e.Text = p.active[i].last.Text
		}
		p.active[i].last = e
	}
}

// animate draws anew until stop is called, which takes the lines away.
func (p *liveProgress) animate() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(redrawEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.mu.Lock()
				p.draw()
				p.mu.Unlock()
			case <-quit:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(quit)
		<-done
		p.mu.Lock()
		defer p.mu.Unlock()
		p.erase()
		p.ended = true
	})
}

func (p *liveProgress) draw() {
	p.erase()
	now := p.now()
	for i, s := range p.active {
		if i > 0 {
			io.WriteString(p.w, "\r\n")
		}
		io.WriteString(p.w, p.line(s.last, now.Sub(s.begun)))
	}
	p.drawn = len(p.active)
}

func (p *liveProgress) erase() {
	if p.drawn == 0 {
		return
	}
	io.WriteString(p.w, "\r")
	if p.drawn > 1 {
		fmt.Fprintf(p.w, "\x1b[%dA", p.drawn-1)
	}
	io.WriteString(p.w, "\x1b[J")
	p.drawn = 0
}

// line fits a stage into one row of the terminal: name, what it does, how long so far.
func (p *liveProgress) line(e banger.Progress, elapsed time.Duration) string {
	took := seconds(elapsed)
	head := []rune(fmt.Sprintf("  %-8s", escape(e.Stage)))
	room := p.width() - len(head) - len(took) - 4
	text := []rune(describe(e))
	if len(text) > room {
		text = append(text[:max(room-3, 0)], []rune("...")...)
	}
	return fmt.Sprintf("%s %s  %s", string(head), string(text), took)
}
