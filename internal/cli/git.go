package cli

import (
	"bytes"
	"context"
	"strings"
	"time"

	"banger/api"
	"banger/internal/proc"
)

// gitTimeout bounds a question to git.
const gitTimeout = 2 * time.Second

// gitIdentity puts the user's own git identity into req, so that commits made in the VM bear it. Without git, or without an
// identity, there is none.
func gitIdentity(ctx context.Context, req *api.CreateRequest) {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	var out bytes.Buffer
	// In "/": the user's and the system's configuration, not that of a repository that we happen to stand in.
	err := proc.Run(ctx, proc.Command{Path: "git", Args: []string{"config", "--null", "--get-regexp", `^user\.(name|email)$`}, Dir: "/", Stdout: &out})
	if err == nil {
		req.GitName, req.GitEmail = parseIdentity(out.String())
	}
}

// parseIdentity reads what git config --null prints: key, newline, value, NUL. The last value of a key counts.
func parseIdentity(out string) (name, email string) {
	for entry := range strings.SplitSeq(out, "\x00") {
		switch key, value, _ := strings.Cut(entry, "\n"); key {
		case "user.name":
			name = value
		case "user.email":
			email = value
		}
	}
	return name, email
}
