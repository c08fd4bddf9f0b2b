package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger"
	"banger/api"
)

// minInterval keeps a measurement well above the granularity of a process's time, which is 10 ms.
const minInterval = 200 * time.Millisecond

func (a *app) vmStats() *cobra.Command {
	var watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use: "stats [flags] [VM...]", Short: "show what VMs use", Args: cobra.ArbitraryArgs,
		Long: `Without a name, of all that run. CPU is what the VM's process has used of one processor during the interval: 200% are two. MEMORY is
what that process has in memory and what the VM may have; a guest gives back what it does not need. SUPERVISOR is the memory of the
process beside it. DISK is what the VM's disk takes up on this computer and how large the guest sees it. NET is what the
guest has received and sent in connections over its network card since the process beside it started. STREAMS are the commands and
connections into the VM, which do not go over that card: published ports too.

On a terminal --watch draws anew at each interval; elsewhere it writes one line for each VM, and with --json one object.`,
		Example:           "  banger vm stats\n  banger vm stats --watch devbox webbox\n  banger vm stats --json --interval 5s",
		ValidArgsFunction: a.completeVMs(0, banger.StateRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval < minInterval {
				return banger.Invalidf("--interval %s: want at least %s", interval, minInterval)
			}
			return a.stats(cmd.Context(), args, interval, watch)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until interrupted")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "how long to measure, and how often with --watch")
	_ = cmd.RegisterFlagCompletionFunc("interval", cobra.NoFileCompletions)
	return cmd
}

// stats shows the second sample and, with watch, each one after it: a share of a processor needs two.
func (a *app) stats(ctx context.Context, refs []string, interval time.Duration, watch bool) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	before, err := c.Stats(ctx, refs...)
	if err != nil {
		return err
	}
	if len(refs) > 0 && len(before.VMs) == 0 {
		return missing(before)
	}
	view := a.statsView(watch)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		now, err := c.Stats(ctx, refs...)
		if err != nil {
			return err
		}
		if err := view(now.Since(before)); err != nil {
			return err
		}
		if before = now; !watch || len(refs) > 0 && len(now.VMs) == 0 {
			return missing(now)
		}
	}
}

// missing are the references that name no VM.
func missing(stats api.Stats) error {
	var failed failures
	for _, body := range stats.Errors {
		failed = append(failed, body.Decode())
	}
	if failed == nil {
		return nil
	}
	return failed
}

// statsView gives what shows one sample after the other.
func (a *app) statsView(watch bool) func(api.Stats) error {
	if a.json {
		return func(stats api.Stats) error { return a.printLine(stats) }
	}
	if fd, ok := terminal(a.Out); ok && watch && os.Getenv("TERM") != "dumb" {
		return (&redrawn{w: a.Out, size: func() (cols, rows int) {
			cols, rows, _ = term.GetSize(fd)
			return cmp.Or(cols, 80), cmp.Or(rows, 24)
		}}).show
	}
	begun := false
	return func(stats api.Stats) error {
		rows := statsRows(stats)
		if a.quiet || begun {
			rows = rows[1:]
		} else if len(rows) == 1 {
			a.notice("no VM runs")
		}
		begun = true
		return table(a.Out, rows)
	}
}

// statsRows are the columns; what is not known is "-".
func statsRows(stats api.Stats) [][]string {
	rows := [][]string{{"NAME", "STATE", "CPU", "CPU TIME", "MEMORY", "SUPERVISOR", "DISK", "NET IN / OUT", "STREAMS", "UPTIME"}}
	for _, vm := range stats.VMs {
		percent, cpu, memory, machine, traffic, streams, uptime := "-", "-", "-", "-", "-", "-", "-"
		if vm.CPUPercent != nil {
			percent = fmt.Sprintf("%.1f%%", *vm.CPUPercent)
		}
		if vm.VMM != nil {
			cpu, memory = seconds(vm.VMM.CPU), banger.FormatSize(vm.VMM.ResidentBytes)
		}
		if vm.Machine != nil {
			machine = banger.FormatSize(vm.Machine.ResidentBytes)
		}
		if vm.Net != nil {
			traffic = banger.FormatSize(vm.Net.ReceivedBytes) + " / " + banger.FormatSize(vm.Net.SentBytes)
		}
		if vm.Streams != nil {
			streams = strconv.Itoa(*vm.Streams)
		}
		if vm.State == banger.StateRunning {
			uptime = vm.Uptime.Truncate(time.Second).String()
		}
		rows = append(rows, []string{vm.Name, string(vm.State), percent, cpu, memory + " / " + banger.FormatSize(int64(vm.MemoryMiB)<<20), machine,
			banger.FormatSize(vm.DiskAllocatedBytes) + " / " + banger.FormatSize(vm.DiskBytes), traffic, streams, uptime})
	}
	return rows
}
