package cli

import (
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/ext4/check"
)

func (a *app) diskCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check IMAGE", Short: "find what is wrong with an image",
		Long:    "It lists all faults and changes nothing. The exit status is 1 when there is one.",
		Example: "  banger disk check out.ext4",
		Args:    diskArgs(0, 0, "an image"), ValidArgsFunction: completeImage,
		RunE: func(_ *cobra.Command, args []string) error {
			f, size, err := openFile(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			faults, err := check.Check(f, size, check.Options{})
			if err != nil {
				return hostError("check", args[0], err)
			}
			if a.json {
				err = a.printJSON(append([]check.Fault{}, faults...))
			} else if len(faults) > 0 {
				rows := [][]string{{"WHERE", "FAULT", "WHAT"}}
				for _, fault := range faults {
					rows = append(rows, []string{fault.Where, string(fault.Class), fault.What})
				}
				err = a.printRows(rows)
			}
			if err != nil {
				return err
			}
			if len(faults) > 0 {
				return &banger.Error{Kind: banger.ErrCorrupt, Op: "check", Subject: args[0], Err: fmt.Errorf("%d faults", len(faults)), Hint: "repair it: e2fsck -f IMAGE"}
			}
			a.notice("no fault found")
			return nil
		},
	}
}

// allocated is what an image takes up on the host.
func allocated(i *image) int64 {
	info, err := i.file.Stat()
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Blocks * 512
}
