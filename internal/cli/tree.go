package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/manual"
)

// Commands is the tree of all commands, for what is generated from it.
func Commands(version string) *cobra.Command {
	return (&app{build: banger.Build{Version: version}}).rootCommand()
}

// addTree gives the root a flag that shows all commands at once.
func (a *app) addTree(root *cobra.Command) {
	var tree bool
	root.Flags().BoolVar(&tree, "tree", false, "show all commands")
	run := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case !tree:
			return run(cmd, args)
		case len(args) > 0:
			return inputError(cmd, "--tree shows all commands: there is no argument, got %q", args[0])
		case a.json:
			return a.printJSON(nodeOf(root))
		}
		return printTree(a.Out, root)
	}
}

func printTree(w io.Writer, root *cobra.Command) error {
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	manual.Walk(root, func(cmd *cobra.Command) {
		depth := strings.Count(cmd.CommandPath(), " ")
		fmt.Fprintf(tw, "%s%s\t%s\n", strings.Repeat("  ", depth), cmd.Name(), cmd.Short)
	})
	return tw.Flush()
}

// commandNode is a command for programs.
type commandNode struct {
	Name     string        `json:"name"` // all words: "banger vm run"
	Short    string        `json:"short"`
	Aliases  []string      `json:"aliases,omitempty"`
	Commands []commandNode `json:"commands,omitempty"`
}

func nodeOf(cmd *cobra.Command) commandNode {
	node := commandNode{Name: cmd.CommandPath(), Short: cmd.Short, Aliases: cmd.Aliases}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			node.Commands = append(node.Commands, nodeOf(sub))
		}
	}
	return node
}
