package qemu

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"banger/internal/kernel"
	"banger/internal/statedir"
)

// makeArtifacts gives a kernel and an initrd with the test guest, made once in a run of the tests.
var makeArtifacts = sync.OnceValues(func() (artifacts, error) {
	guest := os.Getenv(envGuest)
	m := kernel.New(kernel.Config{Dir: statedir.Dir{Root: filepath.Join(filepath.Dir(guest), stateDir)}})
	if err := m.Dir.Ensure(); err != nil {
		return artifacts{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	k, err := m.Ensure(ctx, kernel.DefaultName, nil)
	if err != nil {
		return artifacts{}, err
	}
	initrd, err := m.Initrd(ctx, k, guest)
	return artifacts{m.Dir.Kernel(k.Name).Vmlinux(), initrd}, err
})
