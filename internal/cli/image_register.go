package cli

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

const workSeedHelp = "tar or ext4 image with what machines get in /root: a `file` (default: the image's /root)"

func (a *app) imageRegister() *cobra.Command {
	var rootfs, workSeed, kernel, boot string
	cmd := &cobra.Command{
		Use: "register NAME --rootfs FILE [flags]", Short: "use an ext4 image where it lies",
		Long: `Nothing is copied: machines boot from FILE, read-only. What they write goes to their own disks, over the bytes that FILE had when it
was registered. So it must not change: each start looks, and is refused when FILE has changed, is mounted or is gone. "banger
image promote" makes the image independent of it.

When FILE has moved, register it again under the same name: machines find it there. To delete the image leaves FILE alone.`,
		Example: `  banger image register mine --rootfs ./mine.ext4
  banger image register mine --rootfs ./mine.ext4 --work-seed ./home.tar.gz
  banger vm run --image mine`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want one name, got %d arguments", len(args))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if rootfs == "" {
				return inputError(cmd, "which file? give it with --rootfs")
			}
			if err := banger.ValidateImageName(args[0]); err != nil {
				return err
			}
			rootfs, err := hostPath("register", rootfs)
			if err != nil {
				return err
			}
			workSeed, err := hostPath("register", workSeed)
			if err != nil {
				return err
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			show, end := a.progress()
			image, err := c.RegisterImage(cmd.Context(), api.RegisterRequest{Name: args[0], Rootfs: rootfs, WorkSeed: workSeed, Kernel: kernel, Boot: banger.BootKind(boot)}, show)
			end()
			if err != nil {
				return err
			}
			return a.printMade(image)
		},
	}
	cmd.Flags().StringVar(&rootfs, "rootfs", "", "ext4 image: a `file`")
	cmd.Flags().StringVar(&workSeed, "work-seed", "", workSeedHelp)
	cmd.Flags().StringVar(&kernel, "kernel", "", "`kernel` of its machines (default: the default one)")
	cmd.Flags().StringVar(&boot, "boot", "", "first process: `agent` or system (default: system if the image has systemd)")
	_ = cmd.RegisterFlagCompletionFunc("kernel", a.completeKernels)
	_ = cmd.RegisterFlagCompletionFunc("boot", cobra.FixedCompletions([]cobra.Completion{"agent", "system"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// hostPath gives the daemon, which has another working directory, the path of a file that is there; "" stays.
func hostPath(op, arg string) (string, error) {
	if arg == "" {
		return "", nil
	}
	path, err := filepath.Abs(arg)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", hostError(op, arg, err)
	}
	return path, nil
}
