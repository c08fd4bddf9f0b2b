// Command banger-machine is the supervisor of one running VM. bangerd starts it with the listening machine.sock as
// descriptor 3; it lives as long as the VM's run does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/supervisor"
	"banger/internal/vmm/qemu"
)

const (
	socketFD  = 3
	maxConfig = 1 << 20
)

// version is stamped at build.
var version = "dev"

func main() {
	proc.MaybeConfineMain()
	runtime.GOMAXPROCS(supervisor.Processors())
	m := &Main{Stdout: os.Stdout, Stderr: os.Stderr}
	if err := m.ParseFlags(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "banger-machine:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := m.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "banger-machine:", err)
		os.Exit(1)
	}
}

// Main is the program.
type Main struct {
	Stdout io.Writer
	Stderr io.Writer // the log: JSON lines

	config      string
	showVersion bool
}

// ParseFlags reads the command line.
func (m *Main) ParseFlags(args []string) error {
	flags := flag.NewFlagSet("banger-machine", flag.ContinueOnError)
	flags.StringVar(&m.config, "config", "", "the `file` that says what to run")
	flags.BoolVar(&m.showVersion, "version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case m.config == "" && !m.showVersion:
		return errors.New("--config is missing: bangerd starts this program")
	}
	return nil
}

// Run runs the VM to its end.
func (m *Main) Run(ctx context.Context) error {
	if m.showVersion {
		_, err := fmt.Fprintln(m.Stdout, version)
		return err
	}
	if os.Getuid() == 0 || os.Geteuid() == 0 {
		return &banger.Error{Kind: banger.ErrRefused, Op: "start banger-machine", Err: errors.New("it does not run as root"),
			Hint: "use banger as an ordinary user: no part of its daily work needs root"}
	}
	unix.Umask(0o077)
	cfg, err := readConfig(m.config)
	if err != nil {
		return err
	}
	listener, err := inheritedListener()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(m.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("vm", cfg.ID, "pid", os.Getpid())
	driver := qemu.New(qemu.Config{Shim: self, Log: log})
	keep := driver.Confinement(supervisor.Spec(cfg)).Merge(supervisor.Confinement(cfg))
	if err := proc.ConfineSelf(keep); err != nil {
		return err
	}
	log.Info("starting", "version", version, "name", cfg.Name, "op", cfg.Op, "accel", cfg.Accel, "landlock", proc.LandlockABI())
	_, err = supervisor.Run(ctx, supervisor.Config{Machine: cfg, Driver: driver, Listener: listener, Log: log})
	return err
}

func readConfig(path string) (machine.Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return machine.Config{}, err
	}
	defer f.Close()
	var cfg machine.Config
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&cfg); err != nil {
		return machine.Config{}, &banger.Error{Kind: banger.ErrCorrupt, Op: "read machine configuration", Subject: path, Err: err}
	}
	if cfg.Driver != "qemu" {
		return machine.Config{}, &banger.Error{Kind: banger.ErrUnsupported, Op: "start vm", Subject: string(cfg.ID), Err: fmt.Errorf("no driver %q", cfg.Driver)}
	}
	return cfg, nil
}

func inheritedListener() (*net.UnixListener, error) {
	file := os.NewFile(socketFD, "machine.sock")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is no listening socket: %w", socketFD, err)
	}
	unixListener, ok := listener.(*net.UnixListener)
	if !ok {
		listener.Close()
		return nil, fmt.Errorf("descriptor %d is no unix socket", socketFD)
	}
	unixListener.SetUnlinkOnClose(false)
	return unixListener, nil
}
