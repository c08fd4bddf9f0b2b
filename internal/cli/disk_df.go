package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"banger"
)

// diskUsage is how full an image is.
type diskUsage struct {
	SizeBytes      int64  `json:"size_bytes"`      // of the file system
	UsedBytes      int64  `json:"used_bytes"`      // with what the file system needs for itself
	FreeBytes      int64  `json:"free_bytes"`      // with what is kept for root
	AllocatedBytes int64  `json:"allocated_bytes"` // on the host
	Inodes         uint32 `json:"inodes"`          // that the file system has, used or not
	UsedInodes     uint32 `json:"used_inodes"`     // with those that are reserved
	Label          string `json:"label,omitempty"` // absent: it has none
	UUID           string `json:"uuid"`            // as blkid shows it
	NeedsRecovery  bool   `json:"needs_recovery"`  // its journal has to be replayed: it was in use when it was last written
}

func (a *app) diskUsage() *cobra.Command {
	return &cobra.Command{
		Use: "df IMAGE", Short: "show how full an image is", Example: "  banger disk df out.ext4 --json",
		Args: diskArgs(0, 0, "an image"), ValidArgsFunction: completeImage,
		RunE: func(_ *cobra.Command, args []string) error {
			u, err := usageOf(args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(u)
			}
			return table(a.Out, [][]string{{"SIZE", "USED", "FREE", "ON HOST", "INODES", "USED", "LABEL"},
				{banger.FormatSize(u.SizeBytes), banger.FormatSize(u.UsedBytes), banger.FormatSize(u.FreeBytes), banger.FormatSize(u.AllocatedBytes),
					fmt.Sprint(u.Inodes), fmt.Sprint(u.UsedInodes), u.Label}})
		},
	}
}

func usageOf(name string) (u diskUsage, err error) {
	i, err := openImage(name)
	if err != nil {
		return u, err
	}
	defer i.Close()
	sb := i.Super()
	var free uint64
	var inodes uint32
	for group := range sb.Groups { // the superblock's own counts are old while the image is in use
		g, err := i.Group(group)
		if err != nil {
			return u, hostError("read", name, err)
		}
		free, inodes = free+uint64(g.FreeBlocks()), inodes+g.FreeInodes()
	}
	block := int64(sb.BlockSize)
	u = diskUsage{SizeBytes: int64(sb.BlocksCount) * block, FreeBytes: int64(free) * block, Inodes: sb.InodesCount, UsedInodes: sb.InodesCount - inodes,
		Label: sb.Label, NeedsRecovery: i.NeedsRecovery(), AllocatedBytes: allocated(i)}
	u.UsedBytes = u.SizeBytes - u.FreeBytes
	id := sb.UUID
	u.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return u, nil
}
