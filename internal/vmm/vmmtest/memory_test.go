package vmmtest

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/proc"
	"banger/internal/vmm"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) vmm.Driver { return &Memory{} }, World{
		Spec: func(t *testing.T) vmm.Spec {
			dir := t.TempDir()
			kernel := filepath.Join(dir, "vmlinux")
			if err := os.WriteFile(kernel, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return vmm.Spec{ID: "0123456789ab", Dir: dir, Program: "sleep", Kernel: kernel, Initrd: kernel}
		},
		Orphan: func(t *testing.T, d vmm.Driver, spec vmm.Spec) proc.Handle {
			var handle proc.Handle
			m, err := d.Start(t.Context(), spec, func(h proc.Handle) error { handle = h; return nil })
			if err != nil {
				t.Fatal(err)
			}
			readConsole(m.Console())
			d.(*Memory).Drop(m)
			return handle
		},
	})
}
