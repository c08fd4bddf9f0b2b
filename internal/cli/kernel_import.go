package cli

import (
	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

func (a *app) kernelImport() *cobra.Command {
	var packages []string
	var dir string
	var host, detach bool
	cmd := &cobra.Command{
		Use: "import [flags] NAME --deb FILE | --from DIR | --host", Short: "make a kernel of what lies on this computer",
		Long: `A kernel comes from one of three:

  --deb   a kernel package of Debian or Ubuntu. Where the modules are in packages of their own, give all of them.
  --from  a directory with vmlinuz, vmlinux or bzImage: a distribution's /boot and modules, or a kernel's build after
          "make modules_install INSTALL_MOD_PATH=DIR". What is built in needs no module.
  --host  the kernel that this computer runs

A kernel that lacks what every machine needs is refused, and says what that is. What else it lacks is told.`,
		Example: `  banger kernel import cloud --deb linux-image-6.1.0-42-cloud-amd64_6.1.140-1_amd64.deb
  banger kernel import ubuntu --deb linux-image-6.8.0-40.deb --deb linux-modules-6.8.0-40.deb
  banger kernel import mine --from ~/src/linux
  banger kernel import host --host
  banger vm run --kernel mine`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want a name for the kernel")
			}
			return banger.ValidateKernelName(args[0])
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.ImportKernelRequest{Name: args[0], KernelSource: banger.KernelSource{Packages: packages, Dir: dir, Host: host}}
			if err := kernelSource(cmd, &req.KernelSource); err != nil {
				return err
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if detach {
				return a.detach(cmd.Context(), c, api.RouteKernelImport, req)
			}
			show, end := a.progress()
			kernel, err := c.ImportKernel(cmd.Context(), req, show)
			end()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(kernel)
			}
			for _, note := range kernelNotes(kernel) {
				a.notice("%s", note)
			}
			return a.printKernelNames([]banger.Kernel{kernel})
		},
	}
	cmd.Flags().StringArrayVar(&packages, "deb", nil, "`file` of a Debian package (repeatable)")
	cmd.Flags().StringVar(&dir, "from", "", "`directory` with a kernel")
	cmd.Flags().BoolVar(&host, "host", false, "take the kernel that this computer runs")
	addDetach(cmd, &detach)
	_ = cmd.MarkFlagFilename("deb", "deb")
	_ = cmd.MarkFlagDirname("from")
	return cmd
}

// kernelSource checks that there is one source, and gives the daemon absolute paths of what is there.
func kernelSource(cmd *cobra.Command, src *banger.KernelSource) error {
	given := 0
	for _, name := range []string{"deb", "from", "host"} {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	if given != 1 || src.Dir == "" && !src.Host && len(src.Packages) == 0 {
		return inputError(cmd, "from what? give one of --deb, --from and --host")
	}
	var err error
	for i, path := range src.Packages {
		if src.Packages[i], err = hostPath("import", path); err != nil {
			return err
		}
	}
	if src.Dir != "" {
		src.Dir, err = hostPath("import", src.Dir)
	}
	return err
}
