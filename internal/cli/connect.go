package cli

import (
	"context"
	"os"
	"path/filepath"

	"banger"
	"banger/client"
	"banger/internal/statedir"
)

// dial connects to the daemon and starts it when none runs.
func (a *app) dial(ctx context.Context) (*client.Client, error) {
	cfg, err := clientConfig()
	if err != nil {
		return nil, err
	}
	return client.Dial(ctx, cfg)
}

// dialExisting connects to the daemon if one runs.
func (a *app) dialExisting(ctx context.Context) (*client.Client, error) {
	cfg, err := clientConfig()
	if err != nil {
		return nil, err
	}
	return client.DialExisting(ctx, cfg)
}

// clientConfig takes the daemon that was installed beside this program.
func clientConfig() (client.Config, error) {
	dir, err := statedir.Locate()
	if err != nil {
		return client.Config{}, err
	}
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return client.Config{}, &banger.Error{Kind: banger.ErrUnavailable, Op: "find bangerd", Err: err}
	}
	return client.Config{Dir: dir, Daemon: filepath.Join(filepath.Dir(self), "bangerd")}, nil
}
