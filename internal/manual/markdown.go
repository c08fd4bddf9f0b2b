package manual

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Markdown is one document of all commands below root, with intro at its beginning.
func Markdown(root *cobra.Command, intro string) string {
	var d strings.Builder
	d.WriteString(strings.TrimSpace(intro) + "\n\n")
	for _, sub := range subcommands(root) {
		fmt.Fprintf(&d, "- %s: %s\n", link(sub), markdown(sub.Short))
	}
	Walk(root, func(cmd *cobra.Command) { describe(&d, cmd) })
	return d.String()
}

func link(cmd *cobra.Command) string {
	path := cmd.CommandPath()
	return fmt.Sprintf("[`%s`](#%s)", path, strings.ReplaceAll(path, " ", "-"))
}

func describe(d *strings.Builder, cmd *cobra.Command) {
	fmt.Fprintf(d, "\n## %s\n\n%s\n\n```\n%s\n```\n", cmd.CommandPath(), markdown(cmd.Short), usage(cmd))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(d, "\nAlso: `%s`\n", strings.Join(cmd.Aliases, "`, `"))
	}
	for _, b := range blocks(cmd.Long) {
		if text := strings.Join(b.lines, "\n"); b.verbatim {
			fmt.Fprintf(d, "\n```\n%s\n```\n", text)
		} else {
			fmt.Fprintf(d, "\n%s\n", markdown(text))
		}
	}
	if subs := subcommands(cmd); len(subs) > 0 && cmd.HasParent() {
		d.WriteByte('\n')
		for _, sub := range subs {
			fmt.Fprintf(d, "- %s: %s\n", link(sub), markdown(sub.Short))
		}
	}
	flags := cmd.LocalFlags()
	if list := options(flags); len(list) > 0 {
		d.WriteString("\n| option | |\n|---|---|\n")
		for _, o := range list {
			fmt.Fprintf(d, "| `%s` | %s |\n", strings.TrimSpace(o.name+" "+o.value), cell(o.text))
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(d, "\n```\n%s\n```\n", cmd.Example)
	}
}

var markdownSpecial = strings.NewReplacer(`\`, `\\`, "`", "\\`", `*`, `\*`, `_`, `\_`, `<`, `\<`, `[`, `\[`, `|`, `\|`)

func markdown(text string) string { return markdownSpecial.Replace(text) }

func cell(text string) string { return strings.ReplaceAll(markdown(text), "\n", " ") }
