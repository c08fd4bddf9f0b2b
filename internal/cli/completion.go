package cli

import (
	"github.com/spf13/cobra"
)

// completionSetup says for each shell how its script gets where the shell looks for it.
var completionSetup = map[string]string{
	"bash": `  source <(banger completion bash)               in this shell
  mkdir -p ~/.local/share/bash-completion/completions
  banger completion bash > ~/.local/share/bash-completion/completions/banger`,
	"zsh": `  source <(banger completion zsh)                in this shell
  mkdir -p ~/.zfunc
  banger completion zsh > ~/.zfunc/_banger       with fpath+=~/.zfunc before compinit in ~/.zshrc`,
	"fish": `  banger completion fish | source                in this shell
  mkdir -p ~/.config/fish/completions
  banger completion fish > ~/.config/fish/completions/banger.fish`,
	"powershell": `  banger completion powershell | Out-String | Invoke-Expression`,
}

// describeCompletion puts cobra's commands into our words.
func describeCompletion(cmd *cobra.Command) {
	cmd.Short = "make the script that completes banger's commands in a shell"
	cmd.Long = `The script asks banger itself for what may come next: commands, flags, their values, and from the daemon, if it runs, the names of
VMs, images and kernels. A package of banger has it installed already.`
	cmd.Example = "  source <(banger completion bash)\n\nHow it stays: \"banger completion bash --help\"."
	cmd.Args, cmd.RunE = cobra.ArbitraryArgs, showOrRefuse
	for _, sub := range cmd.Commands() {
		sub.Use = sub.Name() + " [flags]"
		sub.Short, sub.Long, sub.Example = "the script for "+sub.Name(), "", completionSetup[sub.Name()]
		if sub.Name() == "bash" {
			sub.Long = "It needs the package bash-completion. A new shell has it."
		}
		sub.Args = noArgs
		if flag := sub.Flags().Lookup("no-descriptions"); flag != nil {
			flag.Usage = "without the words beside each completion"
		}
	}
}
