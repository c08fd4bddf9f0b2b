// Package manual writes the command line's manual from the commands themselves: a page of section 1 for each of them (man.go), and one
// document of all (markdown.go). The texts of commands are plain text: lines that begin with a space are shown as they are.
package manual

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// shown tells whether people are to know of a command.
func shown(cmd *cobra.Command) bool { return cmd.IsAvailableCommand() || cmd.Name() == "help" }

// subcommands are those of cmd that people are to know.
func subcommands(cmd *cobra.Command) (list []*cobra.Command) {
	for _, sub := range cmd.Commands() {
		if shown(sub) {
			list = append(list, sub)
		}
	}
	return list
}

// Walk calls visit for a command and all below it, but those that are hidden.
func Walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range subcommands(cmd) {
		Walk(sub, visit)
	}
}

// usage is how a command is called.
func usage(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	return cmd.UseLine()
}

// option is a flag as it is shown: "-n, --lines N".
type option struct{ name, value, text string }

// options are the flags of a set in its order.
func options(flags *pflag.FlagSet) (list []option) {
	flags.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" || f.Name == "help" {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		o := option{name: "--" + f.Name, value: value, text: text}
		if f.Shorthand != "" {
			o.name = "-" + f.Shorthand + ", " + o.name
		}
		if !isZero(f.DefValue) {
			o.text += " (default " + f.DefValue + ")"
		}
		list = append(list, o)
	})
	return list
}

func isZero(value string) bool {
	return value == "" || value == "false" || value == "0" || value == "[]" || value == "0s"
}

// block is a part of a text between empty lines.
type block struct {
	lines    []string
	verbatim bool // some line begins with a space
}

func blocks(text string) (list []block) {
	for part := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		b := block{lines: strings.Split(strings.Trim(part, "\n"), "\n")}
		for _, line := range b.lines {
			b.verbatim = b.verbatim || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		}
		if len(b.lines) > 0 && b.lines[0] != "" {
			list = append(list, b)
		}
	}
	return list
}
