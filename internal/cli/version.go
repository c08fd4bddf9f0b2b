package cli

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Build is what the linker stamped into the program.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Built   string `json:"built"` // RFC 3339, UTC
}

// complete fills in what the toolchain knows for a build without stamps.
func (b Build) complete() Build {
	known := Build{Version: "dev", Commit: "unknown", Built: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				known.Commit = s.Value
			case "vcs.time":
				known.Built = s.Value
			}
		}
	}
	return Build{or(b.Version, known.Version), or(b.Commit, known.Commit), or(b.Built, known.Built)}
}

func (b Build) String() string {
	return fmt.Sprintf("banger %s (commit %.12s, built %s)", b.Version, b.Commit, b.Built)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "which build this is", Args: noArgs,
		Example: "  banger version\n  banger version --json",
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(a.build)
			}
			_, err := fmt.Fprintln(a.Out, a.build)
			return err
		},
	}
}
