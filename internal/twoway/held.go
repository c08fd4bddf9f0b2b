package twoway

import (
	"slices"
	"strings"
)

// heldNames are names, in small letters, of files and directories that programs of the host run, or take commands from, without being told
// to: on entering a directory, on opening it in an editor, on a commit. Those of git decide what else of the host is sent, and run
// filters.
var heldNames = []string{
	".envrc", ".direnv", ".mise.toml", "mise.toml", ".mise", ".tool-versions", ".autoenv", ".autoenv.zsh", // on cd
	".vscode", ".idea", ".vs", ".zed", ".fleet", ".nova", ".devcontainer", ".devcontainer.json", // editors
	".exrc", ".vimrc", ".nvimrc", ".nvim.lua", ".lvimrc", ".dir-locals.el", ".dir-locals-2.el",
	".husky", ".githooks", ".pre-commit-config.yaml", "lefthook.yml", "lefthook.yaml", ".lefthook.yml", ".lefthook.yaml", ".lefthook", ".overcommit.yml", // on commit
	".gitignore", ".gitattributes", ".gitmodules", ".gitconfig", // git
	".claude", ".cursor", ".mcp.json", ".codex", ".gemini", // coding agents
	".banger.toml",
}

// Held tells whether a change of a path is kept from the host until a person has accepted it.
func Held(at string) bool {
	for part := range strings.SplitSeq(strings.ToLower(at), "/") {
		if slices.Contains(heldNames, part) || strings.HasSuffix(part, ".code-workspace") {
			return true
		}
	}
	return false
}
