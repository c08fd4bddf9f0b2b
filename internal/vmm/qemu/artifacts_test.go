package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"banger/internal/kernel"
	"banger/internal/statedir"
)

var makeArtifacts = sync.OnceValues(func() (artifacts, error) {
	root := filepath.Join(os.TempDir(), fmt.Sprintf("banger-qemu-test-%d", os.Getuid()))
	m := kernel.New(kernel.Config{Dir: statedir.Dir{Root: root}})
	if err := m.Dir.Ensure(); err != nil {
		return artifacts{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	k, err := m.Ensure(ctx, kernel.DefaultName, nil)
	if err != nil {
		return artifacts{}, err
	}
	initrd, err := m.Initrd(ctx, k, os.Getenv(envGuest))
	return artifacts{m.Dir.Kernel(k.Name).Vmlinux(), initrd}, err
})

