package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
	"banger/internal/channel"
	"banger/internal/transfer"
	"banger/internal/tree"
)

func (a *app) vmCopy() *cobra.Command {
	var flags copyFlags
	cmd := &cobra.Command{
		Use: "cp [flags] SRC DST", Short: "copy files into a VM or out of it",
		Long: `One of SRC and DST is in a VM, as VM:/PATH; the other is a path on this computer, or "-" for a tar on standard input or output. A path
of yours with a colon is written ./a:b.

A copy goes as with cp -a: into DST if that is a directory, else to DST itself, whose parent must be there; SRC/. is what is in the
directory SRC. Files that are there are replaced, directories that are there are joined with what comes. Modes, times, symbolic links
and hard links are kept. What comes out of a VM belongs to you, what goes into one to the VM's default user; set-id bits are dropped. With
--archive they are kept, and into a VM also owners and extended attributes. Devices, FIFOs, sockets and file systems that are mounted
below SRC are left out, and told.

Files are copied out of a VM that does not run without starting it. To copy into one, it is started without its own init and stopped
again. A copy that fails or is interrupted leaves nothing of what it was about to make.`,
		Example: `  banger vm cp devbox:/var/log ./log          out of a machine
  banger vm cp ./config devbox:/etc/app       into one
  banger vm cp ./site/. devbox:/srv/www       what is in ./site
  banger vm cp devbox:/etc - | tar -t         as a tar
  banger vm cp one:/srv - | banger vm cp -a - two:/`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return inputError(cmd, "want a source and a destination, got %d arguments", len(args))
			}
			return nil
		},
		ValidArgsFunction: a.completeSides,
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to, err := parseSides(args[0], args[1])
			if err != nil {
				return err
			}
			start := a.now()
			report, err := a.copyFiles(cmd.Context(), from, to, flags)
			if err != nil {
				return copyError(cmd.Context(), args[0], args[1], err)
			}
			return a.showCopy(args[0], args[1], report, a.now().Sub(start))
		},
	}
	cmd.Flags().BoolVarP(&flags.archive, "archive", "a", false, "keep set-id bits, and in a VM owners and extended attributes")
	cmd.Flags().BoolVarP(&flags.follow, "follow-link", "L", false, "if SRC is a symbolic link, copy what it leads to")
	return cmd
}

type copyFlags struct{ archive, follow bool }

// side is one end of a copy: a path in a VM, a path of the host, or a stream.
type side struct {
	vm, path string
	stream   bool
}

// parseSides reads SRC and DST, of which one is in a VM.
func parseSides(src, dst string) (from, to side, err error) {
	if from, err = parseSide(src); err == nil {
		to, err = parseSide(dst)
	}
	bad := func(text, hint string) error {
		return &banger.Error{Kind: banger.ErrInvalid, Op: "vm cp", Err: errors.New(text), Hint: hint}
	}
	switch {
	case err != nil:
	case from.vm == "" && to.vm == "":
		err = bad("neither of the two is in a VM", "name one as VM:/path, for example: banger vm cp "+src+" devbox:/root/")
	case from.vm != "" && to.vm != "":
		err = bad("only one of the two can be in a VM", fmt.Sprintf("banger vm cp %s - | banger vm cp - %s", src, dst))
	}
	return from, to, err
}

func parseSide(arg string) (side, error) {
	vm, name, ok := strings.Cut(arg, ":")
	switch {
	case arg == "":
		return side{}, banger.Invalidf("vm cp: an argument is empty")
	case arg == "-":
		return side{stream: true}, nil
	case !ok, strings.Contains(vm, "/"), vm == ".", vm == "..":
		return side{path: arg}, nil
	case vm == "":
		return side{}, &banger.Error{Kind: banger.ErrInvalid, Op: "vm cp", Err: fmt.Errorf("%q names no VM", arg), Hint: "for a file of that name: ./" + arg}
	case !strings.HasPrefix(name, "/"):
		return side{}, &banger.Error{Kind: banger.ErrInvalid, Op: "vm cp", Err: fmt.Errorf("%q: paths in a VM are absolute", arg), Hint: "for example: " + vm + ":" + path.Join("/root", name)}
	}
	return side{vm: vm, path: name}, nil
}

// copyFiles copies one way or the other.
func (a *app) copyFiles(ctx context.Context, from, to side, flags copyFlags) (transfer.Report, error) {
	if _, ok := terminal(a.Out); ok && to.stream {
		return transfer.Report{}, &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("a tar is nothing for a terminal"), Hint: "name a directory, or send it on: | tar -t"}
	}
	if _, ok := terminal(a.In); ok && from.stream {
		return transfer.Report{}, &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("a tar is expected on standard input, which is a terminal"), Hint: "tar -c . | banger vm cp - VM:/path"}
	}
	c, err := a.dial(ctx)
	if err != nil {
		return transfer.Report{}, err
	}
	defer c.Close()
	ref := from.vm + to.vm // one is empty
	vm, err := c.ShowVM(ctx, ref)
	if err != nil {
		return transfer.Report{}, err
	}
	show, end := a.progress()
	defer end()
	meter := a.newMeter(show, fmt.Sprintf("copying out of %s", vm.Spec.Name))
	if to.vm != "" {
		meter.text = fmt.Sprintf("copying into %s", vm.Spec.Name)
		return a.copyIn(ctx, c, vm, from, to.path, flags, meter)
	}
	return a.copyOut(ctx, c, vm, from.path, to, flags, meter)
}

// runs tells whether a VM's agent can be asked; a VM that starts is waited for. Errors: ErrConflict in a state in which there is neither
// agent nor a disk at rest.
func runs(vm api.VMDetail) (bool, error) {
	switch vm.State {
	case banger.StateRunning, banger.StateStarting:
		return true, nil
	case banger.StateStopped, banger.StateError:
		return false, nil
	}
	return false, notRunning(vm.Spec.Name, vm.State)
}

// files connects to the agent of a running VM.
func (a *app) files(ctx context.Context, vm api.VMDetail) (transfer.Conn, error) {
	conn, err := a.machine(vm).Connect(ctx, channel.PortFiles)
	if err != nil {
		return nil, err
	}
	return conn.(transfer.Conn), nil
}

func (a *app) copyOut(ctx context.Context, c *client.Client, vm api.VMDetail, name string, to side, flags copyFlags, meter *meter) (report transfer.Report, err error) {
	running, err := runs(vm)
	if err != nil {
		return report, err
	}
	var in *transfer.Incoming
	var source io.Closer
	if running {
		var conn transfer.Conn
		if conn, err = a.files(ctx, vm); err != nil {
			return report, err
		}
		source = conn
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		in, err = transfer.Ask(conn, transfer.Get{Path: []byte(name), Follow: flags.follow})
	} else {
		var stream io.ReadCloser
		if stream, err = c.ReadFiles(ctx, string(vm.ID), name, flags.follow); err != nil {
			return report, err
		}
		source = stream
		in, err = transfer.Receive(stream)
	}
	defer source.Close()
	if err != nil {
		return report, err
	}
	defer meter.begin()()
	if to.stream {
		src := tree.Filter(in.Source(), func(e *tree.Entry) bool {
			report.Entries++
			report.Bytes += e.Size
			return true
		})
		err = tree.WriteTar(a.Out, meter.count(src))
	} else {
		var place transfer.Place
		if place, err = transfer.Resolve(to.path, in.Origin); err != nil {
			return report, err
		}
		report, err = transfer.Write(ctx, place, in.Origin, in.Source(), transfer.Options{Archive: flags.archive, Progress: meter.add})
	}
	left := in.Left()
	report.Skipped += left.Skipped
	report.Left = append(report.Left, left.Left...)
	return report, err
}

func (a *app) copyIn(ctx context.Context, c *client.Client, vm api.VMDetail, from side, name string, flags copyFlags, meter *meter) (report transfer.Report, err error) {
	put := transfer.Put{Path: []byte(name), Origin: transfer.Origin{Dir: true}, Archive: flags.archive}
	src := tree.FromTar(a.In, transfer.Limits)
	if !from.stream {
		if put.Origin, src, err = transfer.Local(from.path, flags.follow, nil); err != nil {
			return report, err
		}
	}
	running, err := runs(vm)
	if err != nil {
		return report, err
	}
	if !running {
		meter.show.Notice("copy", fmt.Sprintf("%s does not run: it is started without its own init for this copy, then stopped", vm.Spec.Name))
		var giveBack func(context.Context) error
		if vm, giveBack, err = c.Borrow(ctx, string(vm.ID), meter.show); err != nil {
			return report, err
		}
		defer func() { err = errors.Join(err, giveBack(context.WithoutCancel(ctx))) }()
	}
	conn, err := a.files(ctx, vm)
	if err != nil {
		return report, err
	}
	defer meter.begin()()
	return transfer.Bring(ctx, conn, put, meter.count(src))
}

// copyError names what was copied.
func copyError(ctx context.Context, from, to string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &banger.Error{Op: "copy", Subject: from + " to " + to, Err: err}
}

// copied is what a copy came to.
type copied struct {
	From string `json:"from"` // as it was given: PATH, VM:PATH or "-"
	To   string `json:"to"`   // likewise
	transfer.Report
	Elapsed time.Duration `json:"elapsed_ns"` // of the whole copy
}

// showCopy tells what was copied.
func (a *app) showCopy(from, to string, report transfer.Report, took time.Duration) error {
	if a.json {
		return a.printCopy(to, copied{from, to, report, took})
	}
	for _, at := range report.Left {
		a.notice("left out: %s", at)
	}
	if more := report.Skipped - len(report.Left); more > 0 {
		a.notice("and %d more left out", more)
	}
	return nil
}

// printCopy writes a result for programs; beside a tar it goes to standard error.
func (a *app) printCopy(to string, result any) error {
	if to == "-" {
		b := *a
		b.Out = a.Err
		return b.printJSON(result)
	}
	return a.printJSON(result)
}

// meter tells how far a copy is.
type meter struct {
	show  banger.ProgressFunc
	now   func() time.Time
	text  string
	bytes int64
	start time.Time
	told  time.Time
}

func (a *app) newMeter(show banger.ProgressFunc, text string) *meter {
	return &meter{show: show, now: a.now, text: text}
}

// begin starts the stage and gives what ends it.
func (m *meter) begin() (end func()) {
	m.start = m.now()
	m.told = m.start
	m.show.Report(banger.Progress{Stage: "copy", Text: m.text})
	return func() {
		m.report(banger.Progress{Done: true, Elapsed: m.now().Sub(m.start)})
	}
}

// add counts bytes of content.
func (m *meter) add(n int64) {
	const often = 200 * time.Millisecond
	m.bytes += n
	if now := m.now(); now.Sub(m.told) > often {
		m.told = now
		m.report(banger.Progress{})
	}
}

func (m *meter) report(p banger.Progress) {
	p.Stage, p.Text, p.Bytes = "copy", m.text, m.bytes
	if took := m.now().Sub(m.start).Seconds(); took > 0 && m.bytes > 0 {
		p.Detail = banger.FormatSize(int64(float64(m.bytes)/took)) + "/s"
	}
	m.show.Report(p)
}

// count counts what is read of a tree's files.
func (m *meter) count(src tree.Source) tree.Source {
	return tree.Filter(src, func(e *tree.Entry) bool {
		if e.Content != nil {
			e.Content = counted{e.Content, m}
		}
		return true
	})
}

type counted struct {
	io.Reader
	m *meter
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.m.add(int64(n))
	return n, err
}

// completeSides offers VMs with a colon, and files of the host.
func (a *app) completeSides(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) >= 2 || strings.Contains(word, ":") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if len(args) == 1 && strings.Contains(args[0], ":") || strings.ContainsAny(word, "/.") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, _ := a.completeVMs(0)(cmd, nil, word)
	names = slices.DeleteFunc(names, func(name cobra.Completion) bool { return !strings.HasPrefix(name, word) })
	for i, name := range names {
		vm, about, _ := strings.Cut(name, "\t")
		names[i] = cobra.CompletionWithDesc(vm+":", about)
	}
	if len(names) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return names, cobra.ShellCompDirectiveNoSpace
}
