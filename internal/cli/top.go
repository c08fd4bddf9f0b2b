package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/top"
)

const (
	topLoadTimeout = 10 * time.Second // for an answer of the daemon
	topPortTimeout = 2 * time.Second  // for one of a guest
	topLogLines    = 2000
)

func (a *app) topCommand() *cobra.Command {
	var conditions []string
	cfg := top.Config{In: a.In, Out: a.Out, Color: os.Getenv("NO_COLOR") == ""}
	cmd := &cobra.Command{
		Use: "top [flags]", Short: "watch VMs and what they use, and act on them", Args: noArgs,
		Long: `A table of all VMs that is drawn anew each second, on a terminal. Keys act on the chosen VM: s opens a shell and leads back here when
that is left, l shows its console, x stops it after a question, u starts it. < and > choose the column to sort by, r turns the order,
/ shows only some VMs, ? tells all keys, q leaves. Nothing is deleted from here.

CPU is of one processor. MEMORY and DISK are what is used and what there may be; NET is what was received and sent in a second; PORTS are
what programs in the VM listen on. A narrow terminal shows fewer columns. For programs: "banger ps --json" and "banger vm stats".`,
		Example: "  banger top\n  banger top --sort cpu\n  banger top --filter state=running --interval 5s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := banger.ParseVMFilter(conditions)
			switch {
			case err != nil:
				return err
			case !slices.Contains(top.Columns(), cfg.Sort):
				return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("--sort " + cfg.Sort + ": there is no such column"),
					Hint: or(didYouMean(cfg.Sort, top.Columns(), "--sort "), "want one of "+strings.Join(top.Columns(), ", "))}
			case cfg.Interval < top.MinInterval:
				return banger.Invalidf("--interval %s: want at least %s", cfg.Interval, top.MinInterval)
			case !a.interactive() || a.json || os.Getenv("TERM") == "dumb":
				return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("top draws on a terminal, and here is none"), Hint: "for programs: banger ps --json, or: banger vm stats"}
			}
			return a.top(cmd.Context(), cfg, filter)
		},
	}
	a.addFilter(cmd, &conditions)
	cmd.Flags().StringVar(&cfg.Sort, "sort", top.Columns()[0], "`column` to sort by: "+strings.Join(top.Columns(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(top.Columns(), cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().DurationVar(&cfg.Interval, "interval", top.MinInterval, "time between two looks, at least 1s")
	_ = cmd.RegisterFlagCompletionFunc("interval", cobra.NoFileCompletions)
	return cmd
}

// top connects first, so that what keeps a daemon from its start is told as any command tells it.
func (a *app) top(ctx context.Context, cfg top.Config, filter banger.VMFilter) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	dir, err := statedir.Locate()
	if err != nil {
		return err
	}
	cfg.Load = func(ctx context.Context) ([]banger.VM, api.Stats, error) { return loadAll(ctx, c, filter) }
	cfg.Ports = func(ctx context.Context, id banger.VMID) ([]uint16, error) { return portNumbers(ctx, dir, id) }
	cfg.Logs = func(ctx context.Context, id banger.VMID) (string, error) { return lastLogs(ctx, dir, id) }
	cfg.Shell = a.shellBeside
	cfg.Stop = func(ctx context.Context, vm banger.VM) error {
		_, err := c.StopVM(ctx, string(vm.ID), 0, nil)
		return safeError(err)
	}
	cfg.Start = func(ctx context.Context, vm banger.VM) error {
		started, err := c.StartVM(ctx, string(vm.ID), api.StartRequest{}, nil)
		if err == nil {
			beside := *a
			beside.Err = io.Discard // the screen is the table's
			err = beside.started(ctx, started)
		}
		return safeError(err)
	}
	return top.Run(ctx, cfg)
}

// loadAll asks for one look at everything.
func loadAll(ctx context.Context, c *client.Client, filter banger.VMFilter) ([]banger.VM, api.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, topLoadTimeout)
	defer cancel()
	vms, err := c.ListVMs(ctx)
	if err != nil {
		return nil, api.Stats{}, safeError(err)
	}
	stats, err := c.Stats(ctx)
	vms = filter.Choose(vms)
	for i := range vms {
		vms[i].LastError = escape(vms[i].LastError)
		vms[i].Spec.Image = escape(vms[i].Spec.Image)
	}
	return vms, stats, safeError(err)
}

// safeError is err with a text and a hint that a terminal takes as they are.
func safeError(err error) error {
	if err == nil {
		return nil
	}
	return &banger.Error{Err: errors.New(escape(err.Error())), Hint: escape(banger.HintOf(err))}
}

// portNumbers are those that a guest listens on or that are pinned.
func portNumbers(ctx context.Context, dir statedir.Dir, id banger.VMID) (numbers []uint16, err error) {
	ctx, cancel := context.WithTimeout(ctx, topPortTimeout)
	defer cancel()
	ports, err := machine.Client{Socket: dir.VM(id).MachineSocket()}.Ports(ctx, false)
	for _, p := range ports.Listeners {
		numbers = append(numbers, p.Port)
	}
	for _, p := range ports.Published {
		numbers = append(numbers, p.Guest)
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), err
}

// lastLogs is the end of a console without colours.
func lastLogs(ctx context.Context, dir statedir.Dir, id banger.VMID) (string, error) {
	var text bytes.Buffer
	if _, err := (machine.Client{Socket: dir.VM(id).MachineSocket()}).Console(ctx, machine.ConsoleRequest{Lines: topLogLines}, &text); err != nil {
		return "", safeError(err)
	}
	return plainConsole(text.String()), nil
}

// plainConsole is what a console shows without its colours; other control characters are escaped.
func plainConsole(text string) string {
	return escape(strings.NewReplacer("\r\n", "\n", "\t", "    ").Replace(ansi.Strip(text)), '\n')
}

// shellBeside runs "banger vm shell" by itself: what reads the terminal's keys for it ends with it.
func (a *app) shellBeside(ctx context.Context, vm banger.VM) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	defer a.signals.redirect(func(os.Signal) {})() // Ctrl-C is for the shell
	var said bytes.Buffer
	err = proc.Run(ctx, proc.Command{Path: self, Args: []string{"vm", "shell", string(vm.ID)}, Stdin: a.In, Stdout: a.Out, Stderr: io.MultiWriter(a.Err, &said), Foreground: true})
	exit, ended := errors.AsType[*proc.ExitError](err)
	switch {
	case ended && exit.Status != statusFailed:
		return nil // the shell's own status
	case ended && said.Len() > 0:
		err = errors.New(strings.TrimPrefix(said.String(), "banger: "))
	}
	return safeError(err)
}
