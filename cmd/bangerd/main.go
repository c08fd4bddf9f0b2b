// Command bangerd is the owner daemon: it makes all decisions about images and VMs and runs as the user who owns them, never as
// root. It may end and start again at any time; no VM and no stream notices.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"banger"
	"banger/api"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/store"
)

// Set by the linker.
var (
	version       = "dev"
	commit, built string
)

func main() {
	proc.MaybeConfineMain()
	m := &Main{Stdout: os.Stdout, Stderr: os.Stderr}
	if err := m.ParseFlags(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "bangerd:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	status, err := m.Run(ctx)
	stop()
	m.Close()
	if err != nil {
		m.report(err)
	}
	os.Exit(status)
}

// Main is the program.
type Main struct {
	Stdout, Stderr io.Writer

	dir             statedir.Dir
	ready           *os.File // may be nil
	showVersion     bool
	examine         bool
	fix             bool
	checkMigrations bool
	closers         []func() // in the order of making
}

// ParseFlags reads the command line.
func (m *Main) ParseFlags(args []string) error {
	flags := flag.NewFlagSet("bangerd", flag.ContinueOnError)
	flags.SetOutput(m.Stderr)
	stateDir := flags.String("state-dir", "", "the `directory` of all state (default: $BANGER_STATE_DIR, or banger below $XDG_STATE_HOME)")
	readyFD := flags.Int("ready-fd", -1, "the `descriptor` that is told when the daemon serves, or why it does not")
	flags.BoolVar(&m.showVersion, "version", false, "print the version and exit")
	flags.BoolVar(&m.examine, "doctor", false, "look at everything that banger keeps and needs, print the report as JSON and exit")
	flags.BoolVar(&m.fix, "fix", false, "with --doctor: end processes that no VM has")
	flags.BoolVar(&m.checkMigrations, "check-migrations", false, "exit with 0 when the database fits, 1 when migrations are needed, 2 when it is incompatible")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *readyFD >= 0 {
		syscall.CloseOnExec(*readyFD)
		m.ready = os.NewFile(uintptr(*readyFD), "ready")
	}
	var err error
	if *stateDir == "" {
		m.dir, err = statedir.Locate()
	} else {
		m.dir.Root, err = filepath.Abs(*stateDir)
	}
	return err
}

// Run does what the flags say and gives the exit status. Serving ends with ctx or by the API.
func (m *Main) Run(ctx context.Context) (status int, err error) {
	switch {
	case m.showVersion:
		fmt.Fprintln(m.Stdout, version)
		return 0, nil
	case m.checkMigrations:
		fit, err := store.Check(ctx, m.dir.Database())
		return int(fit), err
	}
	if os.Getuid() == 0 || os.Geteuid() == 0 {
		return 1, &banger.Error{Kind: banger.ErrRefused, Op: "start bangerd", Err: errors.New("it does not run as root"),
			Hint: "use banger as an ordinary user: no part of its daily work needs root"}
	}
	serve := m.serve
	if m.examine {
		serve = m.doctor
	}
	if err := serve(ctx); err != nil {
		return 1, err
	}
	return 0, nil
}

// Close undoes what Run has opened, the newest first.
func (m *Main) Close() {
	for i := len(m.closers) - 1; i >= 0; i-- {
		m.closers[i]()
	}
	m.closers = nil
}

func (m *Main) onClose(fn func()) { m.closers = append(m.closers, fn) }

// report tells an error to whoever waits for the daemon or reads a report, and on standard error.
func (m *Main) report(err error) {
	fmt.Fprintln(m.Stderr, "bangerd:", err)
	if m.examine {
		_ = json.NewEncoder(m.Stdout).Encode(banger.EncodeError(err, ""))
	}
	if m.ready == nil {
		return
	}
	if line, jsonErr := json.Marshal(banger.EncodeError(err, "")); jsonErr == nil {
		m.tell(string(line))
	}
}

// tell writes the one line that the waiting client reads.
func (m *Main) tell(line string) {
	if m.ready != nil {
		fmt.Fprintln(m.ready, line)
		m.ready.Close()
		m.ready = nil
	}
}

func (m *Main) tellReady() { m.tell(api.Ready) }
