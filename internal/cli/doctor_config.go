package cli

import (
	"context"
	"fmt"
	"strings"

	"banger"
	"banger/internal/config"
	"banger/internal/hostcheck"
)

// configCheck tells whether the configuration can be read, and from a daemon that runs what new VMs get and why.
func (a *app) configCheck(ctx context.Context) hostcheck.Check {
	check := hostcheck.Check{Name: "configuration", Status: hostcheck.Pass, Details: "in order; banger config show tells what holds"}
	_, err := config.Load()
	if err == nil {
		if c, dialErr := a.dialExisting(ctx); dialErr == nil {
			defer c.Close()
			var list []banger.Setting
			list, err = c.Settings(ctx)
			check.Details = "new VMs get " + sizesOf(list)
		}
	}
	if err != nil {
		check.Status, check.Details, check.Hint = hostcheck.Fail, err.Error(), banger.HintOf(err)
	}
	return check
}

// sizesOf tells how large new VMs are and where each value comes from.
func sizesOf(list []banger.Setting) string {
	var parts []string
	for _, name := range []string{"vcpu", "memory", "disk_size"} {
		s := setting(list, "vm_defaults."+name)
		parts = append(parts, fmt.Sprintf("%s %s (%s)", name, s.Value, s.From))
	}
	return strings.Join(parts, ", ")
}
