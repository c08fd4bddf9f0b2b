package cli

import (
	"github.com/spf13/cobra"

	"banger"
)

func (a *app) configGroup() *cobra.Command {
	return a.group("config", "what holds when you do not say otherwise", `
A file of yours, and the environment over it, set what machines are made from and how large they are; banger needs neither.
docs/config.md has every key.`, `
  banger config show                           each value, and where it comes from`,
		a.configShow())
}

func (a *app) configShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "show every setting and where it comes from", Args: noArgs,
		Long: `What the background process goes by: it has read the file, and has the environment, of the command that started it. After a change:
banger daemon stop.`,
		Example: "  banger config show\n  banger config show --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.Settings(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(list)
			}
			return table(a.Out, settingRows(list))
		},
	}
}

func settingRows(list []banger.Setting) [][]string {
	rows := [][]string{{"KEY", "VALUE", "FROM"}}
	for _, s := range list {
		rows = append(rows, []string{s.Key, or(s.Value, "-"), s.From})
	}
	return rows
}
