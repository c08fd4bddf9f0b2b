package banger

import "time"

// Progress is one event of a long operation, in order: a stage begins (Done false, no Detail), tells how far it is,
// and ends (Done true, Elapsed set).
type Progress struct {
	Stage   string        `json:"stage"`                // stable key: "image", "kernel", "disk", "boot"
	Text    string        `json:"text,omitempty"`       // for people: "applying work seed"
	Detail  string        `json:"detail,omitempty"`     // what it does right now
	Bytes   int64         `json:"bytes,omitempty"`      // done so far
	Total   int64         `json:"total,omitempty"`      // 0 when unknown
	Subject string        `json:"subject,omitempty"`    // the operation's object, as soon as it has a name
	Notice  bool          `json:"notice,omitempty"`     // Text is of no stage, and to be read
	Done    bool          `json:"done,omitempty"`       // the stage has ended, well or not
	Elapsed time.Duration `json:"elapsed_ns,omitempty"` // of a stage that is done
}

// ProgressFunc receives progress; it must not block for long. A nil ProgressFunc discards.
type ProgressFunc func(Progress)

// Begin reports that a stage begins and gives the function that reports its end.
func (f ProgressFunc) Begin(stage, text string) (end func()) {
	start := time.Now()
	f.Report(Progress{Stage: stage, Text: text})
	return func() { f.Report(Progress{Stage: stage, Text: text, Done: true, Elapsed: time.Since(start)}) }
}

// Notice tells people something that they are to read, beside the stages.
func (f ProgressFunc) Notice(stage, text string) {
	f.Report(Progress{Stage: stage, Text: text, Notice: true})
}

// Report calls f unless it is nil.
func (f ProgressFunc) Report(p Progress) {
	if f != nil {
		f(p)
	}
}

// Timing is how long one step took. Side is "host" or "guest"; guest steps are measured by the guest's own clock.
type Timing struct {
	Side    string        `json:"side"`       // "host" or "guest"
	Step    string        `json:"step"`       // what was done: "start vmm"
	Elapsed time.Duration `json:"elapsed_ns"` // by the clock of that side
}
