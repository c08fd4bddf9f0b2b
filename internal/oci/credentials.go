package oci

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"banger"
)

// credentialsWait bounds how long a credential helper may take: it may ask a person.
const credentialsWait = time.Minute

// credentials gives what docker's or podman's configuration has for a repository, also by a credential helper. A helper that does not
// end stays behind: it is no process of ours.
// Errors: ErrRefused for a configuration or a helper that fails; ErrUnavailable for a helper that does not answer.
func (r *Registries) credentials(ctx context.Context, repository name.Repository) (authn.Authenticator, error) {
	wait := r.Idle
	if wait == 0 {
		wait = credentialsWait
	}
	type answer struct {
		auth authn.Authenticator
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repository)
		answered <- answer{auth, err}
	}()
	const op, hint = "credentials", "look at docker's configuration and its credential helper: docker login"
	select {
	case a := <-answered:
		if a.err != nil {
			return nil, &banger.Error{Kind: banger.ErrRefused, Op: op, Subject: repository.RegistryStr(), Err: a.err, Hint: hint}
		}
		return a.auth, nil
	case <-time.After(wait):
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: op, Subject: repository.RegistryStr(), Err: fmt.Errorf("a credential helper gave nothing for %s", wait), Hint: hint}
	case <-ctx.Done():
		return nil, &banger.Error{Kind: banger.ErrInterrupted, Op: op, Subject: repository.RegistryStr(), Err: errors.New("while waiting for a credential helper")}
	}
}
