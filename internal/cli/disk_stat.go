package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// diskStat is all that is known of a file in an image.
type diskStat struct {
	diskEntry
	Inode      uint32            `json:"inode"`                // its number
	Links      uint16            `json:"links"`                // names that it has
	Allocated  int64             `json:"allocated_bytes"`      // that its blocks have in the image
	AccessTime time.Time         `json:"access_time"`          // when it was last read, as far as that was noted
	ChangeTime time.Time         `json:"change_time"`          // of its inode
	BirthTime  *time.Time        `json:"birth_time,omitempty"` // when it was made; absent: the image does not say
	Xattrs     map[string][]byte `json:"xattrs,omitempty"`     // base64
}

func (a *app) diskStat() *cobra.Command {
	return &cobra.Command{
		Use: "stat IMAGE PATH", Short: "show all that is known of a file in an image", Example: "  banger disk stat out.ext4 /usr/bin/ping",
		Args: diskArgs(1, 1, "an image and a path in it"), ValidArgsFunction: completeImage,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := statDisk(args[0], args[1])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(s)
			}
			rows := [][]string{{"path", s.Name}, {"type", s.Type}, {"mode", s.Mode + " " + s.perm}, {"owner", fmt.Sprintf("%d:%d", s.UID, s.GID)},
				{"size", fmt.Sprint(s.Size)}, {"allocated", fmt.Sprint(s.Allocated)}, {"inode", fmt.Sprint(s.Inode)}, {"links", fmt.Sprint(s.Links)},
				{"modified", s.ModTime.Format(time.RFC3339Nano)}, {"changed", s.ChangeTime.Format(time.RFC3339Nano)}, {"accessed", s.AccessTime.Format(time.RFC3339Nano)}}
			if s.BirthTime != nil {
				rows = append(rows, []string{"born", s.BirthTime.Format(time.RFC3339Nano)})
			}
			if s.Link != "" {
				rows = append(rows, []string{"link", s.Link})
			}
			if strings.HasSuffix(s.Type, "device") {
				rows = append(rows, []string{"device", fmt.Sprintf("%d,%d", s.Major, s.Minor)})
			}
			for _, name := range slices.Sorted(maps.Keys(s.Xattrs)) {
				rows = append(rows, []string{"xattr", name + "=" + string(s.Xattrs[name])})
			}
			return table(a.Out, rows)
		},
	}
}

func statDisk(name, path string) (s diskStat, err error) {
	i, err := openImage(name)
	if err != nil {
		return s, err
	}
	defer i.Close()
	n, err := i.Lookup(path, false)
	if err == nil {
		s.diskEntry, err = entryOf(inImage(path), n)
	}
	if err == nil {
		s.Xattrs, err = n.Xattrs()
	}
	if err != nil {
		return s, hostError("stat", name, err)
	}
	raw := n.Stat()
	s.Inode, s.Links, s.Allocated, s.AccessTime, s.ChangeTime = raw.Ino, raw.Links, raw.Sectors*512, raw.Access, raw.Change
	if !raw.Birth.IsZero() {
		s.BirthTime = &raw.Birth
	}
	return s, nil
}
