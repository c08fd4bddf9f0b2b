package cli

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"banger/internal/ext4/read"
)

func (a *app) diskList() *cobra.Command {
	return &cobra.Command{
		Use: "ls IMAGE [PATH]", Aliases: []string{"list"}, Short: "list a directory of an image",
		Example: `  banger disk ls out.ext4
  banger disk ls out.ext4 /etc --json`,
		Args: diskArgs(0, 1, "an image and a path in it"), ValidArgsFunction: completeImage,
		RunE: func(_ *cobra.Command, args []string) error {
			i, err := openImage(args[0])
			if err != nil {
				return err
			}
			defer i.Close()
			list, err := listDisk(i, append(args, "/")[1])
			if err != nil {
				return hostError("list", args[0], err)
			}
			if a.json {
				return a.printJSON(list)
			}
			rows := [][]string{{"NAME", "MODE", "UID", "GID", "SIZE", "MODIFIED"}}
			for _, e := range list {
				size, name := fmt.Sprint(e.Size), e.Name
				switch e.Type {
				case "symlink":
					name += " -> " + e.Link
				case "char-device", "block-device":
					size = fmt.Sprintf("%d,%d", e.Major, e.Minor)
				}
				if a.quiet {
					name = e.Name
				}
				rows = append(rows, []string{name, e.perm, fmt.Sprint(e.UID), fmt.Sprint(e.GID), size, e.ModTime.Format("2006-01-02 15:04:05")})
			}
			return a.printRows(rows)
		},
	}
}

// listDisk lists a directory, or the one thing that a path names.
func listDisk(i *image, name string) ([]diskEntry, error) {
	n, err := i.Lookup(name, true)
	if err != nil {
		return nil, err
	}
	list := []diskEntry{}
	if !n.IsDir() {
		e, err := entryOf(name, n)
		return append(list, e), err
	}
	for d, err := range n.Entries() {
		var child *read.Node
		if err == nil {
			child, err = i.Node(d.Ino)
		}
		var e diskEntry
		if err == nil {
			e, err = entryOf(d.Name, child)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b diskEntry) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}
