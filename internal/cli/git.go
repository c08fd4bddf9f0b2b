package cli

import (
	"bytes"
	"context"
	"strings"
	"time"

	"banger/internal/api"
	"banger/internal/proc"
)

// gitTimeout bounds a question to git.
const gitTimeout = 2 * time.Second

// gitIdentity puts the user's own git identity into req, so that commits made in the VM bear it. Without git, or without an
// identity, there is none.
func (a *app) gitIdentity(ctx context.Context, req *api.CreateRequest) {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	req.GitName, req.GitEmail = gitConfig(ctx, "user.name"), gitConfig(ctx, "user.email")
}

// gitConfig reads the user's configuration, not that of a repository that we happen to stand in.
func gitConfig(ctx context.Context, key string) string {
	var out bytes.Buffer
	if err := proc.Run(ctx, proc.Command{Path: "git", Args: []string{"config", "--global", "--get", key}, Stdout: &out}); err != nil {
		return ""
	}
	return strings.TrimSpace(out.String())
}
