package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

func (a *app) imageImport() *cobra.Command {
	var req api.ImportRequest
	var rootfs, workSeed string
	var detach bool
	cmd := &cobra.Command{
		Use: "import [flags] FILE|DIR|-|--rootfs FILE", Short: "make an image of what lies on this computer",
		Long: `What is imported is an OCI layout (a directory or an archive), an archive of "docker save", a tar of a root file system, a
directory with one, or an ext4 image that was unmounted. Archives and tars may be compressed with gzip, xz, zstd or bzip2; "-" is
standard input. All of it is copied; "banger image register" uses an ext4 image where it lies.

The image boots as it is: nothing is installed in it. When it has systemd, machines start that; --boot agent leaves it out.`,
		Example: `  docker save alpine:3 | banger image import - --name alpine
  banger image import ./rootfs.tar.xz --name mine
  banger image import ./oci-layout --name mine
  banger image import --rootfs mine.ext4 --work-seed home.tar.gz
  banger vm run --image mine`,
		Args: func(cmd *cobra.Command, args []string) error {
			if rootfs != "" {
				args = append(args, rootfs)
			}
			if len(args) != 1 {
				return inputError(cmd, "want one file, directory, - or --rootfs")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Rootfs = rootfs != ""; req.Rootfs {
				args = []string{rootfs}
			}
			if detach && args[0] == "-" {
				return inputError(cmd, "--detach: standard input ends with this client")
			}
			path, done, err := a.importPath(args[0])
			if err != nil {
				return err
			}
			defer done()
			if req.WorkSeed, err = hostPath("import", workSeed); err != nil {
				return err
			}
			if req.Name == "" && args[0] == "-" {
				return inputError(cmd, "standard input has no name: give the image one with --name")
			}
			if req.Name == "" {
				req.Name = nameOf(path)
			}
			if err := banger.ValidateImageName(req.Name); err != nil {
				return err
			}
			req.Path = path
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if detach {
				return a.detach(cmd.Context(), c, api.RouteImageImport, req)
			}
			show, end := a.progress()
			image, err := c.ImportImage(cmd.Context(), req, show)
			end()
			if err != nil {
				return err
			}
			return a.printMade(image)
		},
	}
	cmd.Flags().StringVar(&rootfs, "rootfs", "", "ext4 image to import: a `file`")
	cmd.Flags().StringVar(&workSeed, "work-seed", "", workSeedHelp)
	a.imageFlags(cmd, &req.Name, &req.Boot, &req.Kernel, "of the file, without its ending")
	addDetach(cmd, &detach)
	return cmd
}

// importPath gives the daemon, which is another process of the same user, a path of its own to what the user names. Standard
// input goes through a pipe of ours: that which we have may be another user's, or no file at all.
func (a *app) importPath(arg string) (path string, done func(), err error) {
	if arg != "-" {
		path, err := filepath.Abs(arg)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return "", nil, hostError("import", arg, err)
		}
		return path, func() {}, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", nil, err
	}
	go func() {
		_, _ = io.Copy(w, a.In) // an image that is cut off is told by the daemon
		w.Close()
	}()
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), r.Fd()), func() { r.Close() }, nil
}

var (
	archiveEnding = regexp.MustCompile(`(?i)\.(oci|docker|ext4|img|raw|tar|tgz|txz|tbz2?|tzst|gz|xz|zst|bz2)$`)
	noNamePart    = regexp.MustCompile(`[^a-z0-9._-]+`)
)

// nameOf makes a name of a path.
func nameOf(path string) string {
	base := filepath.Base(path)
	for cut := ""; cut != base; {
		cut, base = base, archiveEnding.ReplaceAllString(base, "")
	}
	return strings.Trim(noNamePart.ReplaceAllString(strings.ToLower(base), "-"), "._-")
}
