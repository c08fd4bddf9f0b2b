package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger"
)

func (a *app) vmList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "list VMs", Args: noArgs,
		Example: "  banger vm list\n  banger vm delete --force $(banger vm list --quiet)     all of them",
		RunE:    a.listVMs,
	}
}

func (a *app) psCommand() *cobra.Command {
	return &cobra.Command{Use: "ps", Short: "list VMs", Long: `The same as "banger vm list".`, Args: noArgs, RunE: a.listVMs}
}

func (a *app) listVMs(cmd *cobra.Command, _ []string) error {
	c, err := a.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ListVMs(cmd.Context())
	if err != nil {
		return err
	}
	switch {
	case a.json:
		return a.printJSON(append([]banger.VM{}, list...))
	case a.quiet:
		for _, vm := range list {
			fmt.Fprintln(a.Out, vm.ID)
		}
		return nil
	}
	if len(list) == 0 {
		a.notice("no VMs yet (make one with: banger vm run)")
	}
	return table(a.Out, vmRows(list, a.now()))
}

func vmRows(list []banger.VM, now time.Time) [][]string {
	rows := [][]string{{"ID", "NAME", "STATE", "IMAGE", "VCPU", "MEMORY", "DISK", "CREATED"}}
	for _, vm := range list {
		rows = append(rows, []string{string(vm.ID), vm.Spec.Name, string(vm.State), vm.Spec.Image, strconv.Itoa(vm.Spec.VCPU),
			fmt.Sprintf("%d MiB", vm.Spec.MemoryMiB), banger.FormatSize(vm.Spec.DiskBytes), ago(now, vm.CreatedAt)})
	}
	return rows
}

// specLine is a VM's size in one line.
func specLine(s banger.VMSpec) string {
	return fmt.Sprintf("spec: %d vcpu | %d MiB | %s disk", s.VCPU, s.MemoryMiB, banger.FormatSize(s.DiskBytes))
}
