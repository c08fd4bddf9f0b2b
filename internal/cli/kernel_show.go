package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"banger"
)

func (a *app) kernelShow() *cobra.Command {
	return &cobra.Command{
		Use: "show KERNEL", Short: "show everything about a kernel",
		Long:    "The second table says how the kernel has what machines need: built in, as a module, or not at all.",
		Example: "  banger kernel show debian-cloud\n  banger kernel show --json debian-cloud",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want one kernel; see: banger kernel list")
			}
			return nil
		},
		ValidArgsFunction: a.completeKernels,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			kernel, err := c.ShowKernel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			switch {
			case a.json:
				return a.printJSON(kernel)
			case a.quiet:
				return a.printKernelNames([]banger.Kernel{kernel})
			}
			rows := [][]string{{"name", kernel.Name}, {"version", kernel.Version}, {"source", kernel.Source},
				{"vmlinux", "sha256:" + kernel.VmlinuxSHA}, {"modules", "sha256:" + kernel.ModulesSHA}, {"size", kernelSize(kernel)},
				{"number of modules", strconv.Itoa(kernel.ModuleCount)}, {"created", ago(a.now(), kernel.CreatedAt)}}
			if err := table(a.Out, rows); err != nil || kernel.Features == nil {
				return err
			}
			fmt.Fprintln(a.Out)
			rows = [][]string{{"FEATURE", "STATE", "NEEDED"}}
			for _, f := range kernel.Features {
				needed := "by some"
				if f.Required {
					needed = "by all machines"
				}
				rows = append(rows, []string{f.Name, string(f.State), needed})
			}
			return table(a.Out, rows)
		},
	}
}

func kernelSize(k banger.Kernel) string {
	text := banger.FormatSize(k.SizeBytes)
	if k.VmlinuxBytes > 0 {
		text += fmt.Sprintf(" (vmlinux %s, modules %s)", banger.FormatSize(k.VmlinuxBytes), banger.FormatSize(k.SizeBytes-k.VmlinuxBytes))
	}
	return text
}

// kernelNotes says what a kernel lacks, and what nobody knows.
func kernelNotes(k banger.Kernel) []string {
	names := func(state banger.FeatureState) string {
		var found []string
		for _, f := range k.Features {
			if f.State == state {
				found = append(found, f.Name)
			}
		}
		return strings.Join(found, ", ")
	}
	var notes []string
	if missing := names(banger.FeatureMissing); missing != "" {
		notes = append(notes, "the kernel does not have: "+missing)
	}
	if unknown := names(banger.FeatureUnknown); unknown != "" {
		notes = append(notes, "nothing tells whether the kernel has: "+unknown)
	}
	return notes
}

// printKernelNames tells the names of kernels.
func (a *app) printKernelNames(list []banger.Kernel) error {
	if a.json {
		return a.printJSON(list)
	}
	for _, k := range list {
		if _, err := fmt.Fprintln(a.Out, escape(k.Name)); err != nil {
			return err
		}
	}
	return nil
}
