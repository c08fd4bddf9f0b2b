package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
)

// completionTimeout bounds how long a Tab may take.
const completionTimeout = 500 * time.Millisecond

// completeVMs offers the names of VMs in one of states (all when none is given), at most limit of them on one command line
// (0: any number). It is quiet when no daemon answers.
func (a *app) completeVMs(limit int, states ...banger.VMState) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		c, err := a.dialExisting(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		list, _ := c.ListVMs(ctx)
		var names []cobra.Completion
		for _, vm := range list {
			if (len(states) == 0 || slices.Contains(states, vm.State)) && !slices.Contains(args, vm.Spec.Name) {
				names = append(names, cobra.CompletionWithDesc(vm.Spec.Name, escape(string(vm.State)+", "+vm.Spec.Image)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFilter offers the keys of --filter, then the values that VMs have of the one that is typed.
func (a *app) completeFilter(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	key, _, ok := strings.Cut(toComplete, "=")
	switch {
	case !ok:
		var keys []cobra.Completion
		for _, key := range banger.FilterKeys {
			keys = append(keys, key+"=")
		}
		return keys, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	case key == "state":
		return conditions(key, banger.FilterStates), cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(cmd, func(ctx context.Context, c *client.Client) []cobra.Completion {
		list, _ := c.ListVMs(ctx)
		var values []string
		for _, vm := range list {
			switch key {
			case "image":
				values = append(values, vm.Spec.Image)
			case "name":
				values = append(values, vm.Spec.Name)
			case "label":
				for label, value := range vm.Spec.Labels {
					values = append(values, label, label+"="+value)
				}
			}
		}
		return conditions(key, values)
	})
}

// conditions are the filters by values of a key, sorted; a value that is no line is left out.
func conditions(key string, values []string) (list []cobra.Completion) {
	for _, value := range values {
		if escape(value) == value {
			list = append(list, key+"="+value)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// completeImages offers the images that are ready.
func (a *app) completeImages(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeNames(cmd, func(ctx context.Context, c *client.Client) (names []cobra.Completion) {
		list, _ := c.Images(ctx)
		for _, image := range list {
			names = append(names, image.Name)
		}
		return names
	})
}

// completeKernels offers the kernels that are ready and not yet on the command line.
func (a *app) completeKernels(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeNames(cmd, func(ctx context.Context, c *client.Client) (names []cobra.Completion) {
		list, _ := c.Kernels(ctx)
		for _, kernel := range list {
			if !slices.Contains(args, kernel.Name) {
				names = append(names, kernel.Name)
			}
		}
		return names
	})
}

// completeAnyKernel offers also the kernels that can be had by name.
func (a *app) completeAnyKernel(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeNames(cmd, func(ctx context.Context, c *client.Client) (names []cobra.Completion) {
		list, _ := c.Kernels(ctx)
		for _, kernel := range list {
			names = append(names, kernel.Name)
		}
		offers, _ := c.OfferedKernels(ctx)
		for _, offer := range offers {
			if !slices.Contains(names, offer.Name) {
				names = append(names, offer.Name)
			}
		}
		return names
	})
}

// completeNames offers what the daemon knows, if one runs.
func (a *app) completeNames(cmd *cobra.Command, list func(context.Context, *client.Client) []cobra.Completion) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	c, err := a.dialExisting(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	return list(ctx, c), cobra.ShellCompDirectiveNoFileComp
}
