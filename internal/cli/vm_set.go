package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

// setFlags are what of a VM can be changed.
type setFlags struct {
	spec    specFlags
	env     execFlags
	idle    span
	ttl     span
	noEnv   []string
	noLabel []string
	noSync  []string
	dryRun  bool
}

func (a *app) vmSet() *cobra.Command {
	var flags setFlags
	cmd := &cobra.Command{
		Use: "set [flags] VM...", Short: "change the sizes, the variables, the labels of VMs", Args: someVMs,
		Long: `A VM that does not run is changed at once; one that runs gets its labels, --ttl and --stop-idle at once and the rest at its next
start (the guest's own reboot is none). A disk only grows: the guest makes its file system larger when it boots. All of a change is done or nothing.`,
		Example: `  banger vm set --memory 8G --vcpu 4 devbox
  banger vm set --disk-size 100G devbox && banger vm restart devbox
  banger vm set --label team=blue --remove-label scratch devbox webbox
  banger vm set --remove-sync ~/.netrc devbox         it gets no copies any more; the one that it has stays
  banger vm set --dry-run --disk-size 4G devbox       what would come of it`,
		ValidArgsFunction: a.completeVMs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := flags.change(cmd)
			if err != nil {
				return err
			}
			return a.setVMs(cmd.Context(), args, api.SetRequest{SpecChange: change, DryRun: flags.dryRun})
		},
	}
	flags.add(cmd)
	return cmd
}

func (f *setFlags) add(cmd *cobra.Command) {
	f.spec.addSizes(cmd, "", "")
	cmd.Flags().Var(&f.ttl, "ttl", "delete the VM after this `time` from now on: 2h, 7d; 0 is never")
	_ = cmd.RegisterFlagCompletionFunc("ttl", cobra.NoFileCompletions)
	f.idle.addIdle(cmd, "")
	flags := cmd.Flags()
	flags.StringArrayVar(&f.noLabel, "remove-label", nil, "`KEY` of a label to remove (repeatable)")
	f.env.addVariables(cmd)
	flags.StringArrayVar(&f.noEnv, "remove-env", nil, "`KEY` of a variable to remove (repeatable)")
	flags.StringArrayVar(&f.noSync, "remove-sync", nil, "`file` of your home that --sync named and that the VM gets no copies of any more (repeatable)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only tell what would change, and when")
	for _, name := range []string{"remove-label", "remove-env"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// change checks the flags and gives what they ask for.
func (f *setFlags) change(cmd *cobra.Command) (banger.SpecChange, error) {
	req, err := f.spec.request()
	if err != nil {
		return banger.SpecChange{}, err
	}
	env, err := f.env.environment(os.LookupEnv)
	if err != nil {
		return banger.SpecChange{}, err
	}
	idle, err := f.idle.idle(cmd)
	if err != nil {
		return banger.SpecChange{}, err
	}
	gone, err := homePaths(f.noSync)
	if err != nil {
		return banger.SpecChange{}, err
	}
	change := banger.SpecChange{StopIdle: idle, VCPU: req.VCPU, MemoryMiB: req.MemoryMiB, DiskBytes: req.DiskBytes, Env: changes(env, f.noEnv), Labels: changes(req.Labels, f.noLabel),
		RemoveSync: gone}
	if cmd.Flags().Changed("ttl") {
		ttl := time.Duration(f.ttl)
		change.TTL = &ttl
	}
	if change.IsZero() {
		return change, &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("vm set: nothing to change was given"), Hint: "for example: --memory 4G; see: banger vm set --help"}
	}
	return change, nil
}

// changes joins what is set and what is removed.
func changes(set map[string]string, remove []string) map[string]*string {
	all := map[string]*string{}
	for key, value := range set {
		all[key] = &value
	}
	for _, key := range remove {
		all[key] = nil
	}
	return all
}

// homePaths gives files of the user's home in each way that --sync may have named them: "~/.netrc" and "/home/me/.netrc".
func homePaths(list []string) (all []string, err error) {
	sync, err := parseSync(list)
	if err != nil || sync == nil {
		return nil, err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	for _, f := range sync {
		if f.Guest != "" {
			return nil, banger.Invalidf("--remove-sync %q: want the path here alone", f.String())
		}
		name, _, err := f.Paths(home)
		if err != nil {
			return nil, err
		}
		all = append(all, f.Host, "~/"+name, filepath.Join(home, name))
	}
	return all, nil
}

func (a *app) setVMs(ctx context.Context, refs []string, req api.SetRequest) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := newBatch(ctx, c, refs)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	results := map[banger.VMID]api.SetResult{}
	a.runBatch(ctx, c, b, func(ctx context.Context, c *client.Client, ref string, _ banger.ProgressFunc) (api.VMDetail, error) {
		result, err := c.SetVM(ctx, ref, req)
		mu.Lock()
		defer mu.Unlock()
		results[banger.VMID(ref)] = result
		return api.VMDetail{VM: result.VM}, err
	})
	done, failed := b.outcome()
	list := []api.SetResult{}
	for _, vm := range done {
		list = append(list, results[vm.ID])
	}
	switch {
	case a.json:
		err = a.printJSON(list)
	case req.DryRun:
		err = table(a.Out, changeRows(list))
	default:
		err = a.printVMs(done, vmName)
		a.tellPending(list)
	}
	if err != nil {
		return err
	}
	return failed
}

func changeRows(list []api.SetResult) [][]string {
	rows := [][]string{{"VM", "WHAT", "FROM", "TO", "WHEN"}}
	for _, result := range list {
		for _, c := range result.Changes {
			when := c.When
			if c.Reason != "" {
				when += ": " + c.Reason
			}
			rows = append(rows, []string{result.VM.Spec.Name, c.Field, c.From, c.To, when})
		}
	}
	return rows
}

// tellPending tells what is still to be done for a change to hold, or that there was none.
func (a *app) tellPending(list []api.SetResult) {
	for _, result := range list {
		name, waits := result.VM.Spec.Name, 0
		for _, c := range result.Changes {
			if c.When == api.WhenNextStart {
				waits++
			}
		}
		switch {
		case len(result.Changes) == 0:
			a.notice("%s is like that already", name)
		case waits > 0:
			a.notice("%s: %s at its next start: banger vm restart %s", name, plural(waits, "change", "changes"), name)
		}
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
