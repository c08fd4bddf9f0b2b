// Package cli is the banger command: it parses, asks the daemon through package client, carries streams to a VM's
// supervisor through package machine, and shows what happens.
//
// One file holds one command (vm_run.go). Results go to standard output, everything else to standard error: the output of
// a command in a VM is never mixed with banger's own words.
package cli

import (
	"context"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/term"

	"banger"
	"banger/internal/format"
	"banger/internal/mcp"
)

// Streams are what the command reads and writes. A stream with a file descriptor of a terminal is treated as one.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Build is the build of the program that calls Run.
type Build = banger.Build

// app is one invocation.
type app struct {
	Streams
	build   Build
	signals *signals
	now     func() time.Time

	json, quiet, verbose bool
	noPager              bool
	format               string
	template             *format.Template // of --format: json is set, too

	listener mcp.Listener // in place of standard error, for a tool of "banger mcp"
}

// Run runs banger with args, the program's name left out, and gives its exit status.
func Run(ctx context.Context, args []string, streams Streams, build Build) int {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &app{Streams: streams, build: build.Complete(), now: time.Now}
	a.signals = watchSignals(func(os.Signal) { cancel(errSignal) })
	defer a.signals.stop()

	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.json = a.json || asksForJSON(args)
	return a.report(err)
}

// asksForJSON finds --json when the command line could not be parsed up to it.
func asksForJSON(args []string) bool {
	if dash := slices.Index(args, "--"); dash >= 0 {
		args = args[:dash]
	}
	return slices.Contains(args, "--json")
}

// terminal gives the descriptor of stream when that is a terminal.
func terminal(stream any) (fd int, ok bool) {
	file, ok := stream.(interface{ Fd() uintptr })
	if !ok {
		return 0, false
	}
	fd = int(file.Fd())
	return fd, term.IsTerminal(fd)
}

// interactive tells whether a person sits at both ends: a command gets a terminal then.
func (a *app) interactive() bool {
	_, in := terminal(a.In)
	_, out := terminal(a.Out)
	return in && out
}

// silent tells that nothing but results and errors is wanted.
func (a *app) silent() bool { return a.quiet || a.json }

// report shows err and gives the exit status.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	for _, one := range separate(err) {
		a.showError(one)
	}
	return statusOf(err)
}

// validate checks the parts of spec that the user gave; the daemon fills in the others.
func validate(spec banger.VMSpec) error {
	fallback := func(use *string, value string) {
		if *use == "" {
			*use = value
		}
	}
	fallback(&spec.Name, "x")
	fallback(&spec.Image, "x")
	return spec.Validate()
}
