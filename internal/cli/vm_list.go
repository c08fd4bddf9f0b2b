package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger"
)

func (a *app) vmList() *cobra.Command {
	return a.listCommand(&cobra.Command{
		Use: "list [flags]", Aliases: []string{"ls"}, Short: "list VMs",
		Long: "It waits for nothing that is being done to a VM. With several filters, all of them hold; of two states, images or names, one does.",
		Example: `  banger vm list
  banger vm list --filter state=running --filter label=team=blue
  banger vm stop $(banger vm list --quiet --filter 'name=web-*')
  banger vm delete --force $(banger vm list --quiet)     all of them`,
	})
}

func (a *app) psCommand() *cobra.Command {
	return a.listCommand(&cobra.Command{Use: "ps [flags]", Short: "list VMs", Long: `The same as "banger vm list".`,
		Example: "  banger ps\n  banger ps --filter state=running\n  banger ps --json"})
}

func (a *app) listCommand(cmd *cobra.Command) *cobra.Command {
	var conditions []string
	cmd.Args = noArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.listVMs(cmd, conditions) }
	a.addFilter(cmd, &conditions)
	return cmd
}

// addFilter adds the flag that chooses VMs.
func (a *app) addFilter(cmd *cobra.Command, conditions *[]string) {
	cmd.Flags().StringArrayVar(conditions, "filter", nil, "`KEY=VALUE`: state=running, label=team, label=team=blue, image=debian*, name=web-* (repeatable)")
	_ = cmd.RegisterFlagCompletionFunc("filter", a.completeFilter)
}

func (a *app) listVMs(cmd *cobra.Command, conditions []string) error {
	filter, err := banger.ParseVMFilter(conditions)
	if err != nil {
		return err
	}
	c, err := a.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.ListVMs(cmd.Context())
	if err != nil {
		return err
	}
	list := filter.Choose(all)
	switch {
	case a.json:
		return a.printJSON(list)
	case a.quiet:
		for _, vm := range list {
			fmt.Fprintln(a.Out, vm.ID)
		}
		return nil
	}
	switch {
	case len(all) == 0:
		a.notice("no VMs yet (make one with: banger vm run)")
	case len(list) == 0:
		a.notice("no VM is like that")
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
