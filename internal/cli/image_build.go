package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

// maxDefinition bounds the file of --file; the daemon has the same bound.
const maxDefinition = 256 << 10

func (a *app) imageBuild() *cobra.Command {
	var req api.BuildRequest
	var file string
	var detach bool
	cmd := &cobra.Command{
		Use: "build [flags] NAME", Short: "make an image from the packages of a distribution",
		Long: `mmdebstrap makes the image from Debian's or Ubuntu's packages, without root. A NAME alone is that of one of banger's own images
(debian-bookworm, debian-bookworm-slim): it is made anew from the packages of today. Machines on the old one keep it.

A definition says all that can be said about an image: packages, the first process, files of its own. It is TOML, and explained in
docs/image-definition.md. --from may also name one of banger's own, to add packages to it.`,
		Example: `  banger image build debian-bookworm-slim                                    anew, with security updates
  banger image build web --from debian:trixie --packages nginx,curl
  banger image build dev --from debian-bookworm --packages golang,shellcheck
  banger image build mine --file image.toml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want one name for the image")
			}
			return nil
		},
		ValidArgsFunction: cobra.FixedCompletions([]cobra.Completion{"debian-bookworm", "debian-bookworm-slim"}, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			req.Name = args[0]
			if err := banger.ValidateImageName(req.Name); err != nil {
				return err
			}
			if file != "" {
				if req.Definition, err = readDefinition(file); err != nil {
					return err
				}
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if detach {
				return a.detach(cmd.Context(), c, api.RouteImageBuild, req)
			}
			show, end := a.progress()
			image, err := c.BuildImage(cmd.Context(), req, show)
			end()
			if err != nil {
				return err
			}
			if len(image.Missing) > 0 {
				a.notice("left out, since it could not be fetched: %s", strings.Join(image.Missing, ", "))
			}
			return a.printMade(image)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.From, "from", "", "`distribution`:suite, or an own image of banger's (default: debian:bookworm)")
	flags.StringSliceVar(&req.Packages, "packages", nil, "`names` of packages, with commas between them (repeatable)")
	flags.StringVar(&file, "file", "", "`file` with a definition")
	flags.StringVar((*string)(&req.Boot), "boot", "", "first process: `agent` or system (default: system if the image has systemd)")
	flags.StringVar(&req.Kernel, "kernel", "", "`kernel` that its machines boot (default: the one that vm run takes)")
	addDetach(cmd, &detach)
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]cobra.Completion{"debian:bookworm", "debian:trixie", "ubuntu:jammy", "ubuntu:noble",
		"debian-bookworm", "debian-bookworm-slim"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("packages", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("file", cobra.FixedCompletions([]cobra.Completion{"toml"}, cobra.ShellCompDirectiveFilterFileExt))
	_ = cmd.RegisterFlagCompletionFunc("boot", cobra.FixedCompletions([]cobra.Completion{"agent", "system"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("kernel", a.completeKernels)
	return cmd
}

// readDefinition reads a file that a person wrote.
func readDefinition(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", hostError("read definition", name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDefinition+1))
	switch {
	case err != nil:
		return "", hostError("read definition", name, err)
	case len(text) > maxDefinition:
		return "", &banger.Error{Kind: banger.ErrInvalid, Op: "read definition", Subject: name, Err: fmt.Errorf("it has more than %s", banger.FormatSize(maxDefinition))}
	case strings.TrimSpace(string(text)) == "":
		return "", &banger.Error{Kind: banger.ErrInvalid, Op: "read definition", Subject: name, Err: errors.New("it is empty")}
	}
	return string(text), nil
}
