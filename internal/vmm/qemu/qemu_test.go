package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/proc"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

func TestContract(t *testing.T) {
	vmmtest.Run(t, func(t *testing.T) vmm.Driver { return newDriver(t) }, vmmtest.World{Spec: realSpec, Orphan: orphan})
}

func TestArgs(t *testing.T) {
	base := vmm.Spec{ID: "0123456789ab", MTU: 65520, Dir: "/state/vms/0123456789ab", Program: "/usr/bin/qemu-system-x86_64", Accel: vmm.TCG, TSCKHz: 2596124,
		VCPU: 1, MemoryMiB: 512, Kernel: "/state/kernels/k/vmlinux", Initrd: "/state/kernels/k/initrd-1", BootArgs: []string{"banger.boot=agent"},
		Drives: []vmm.Drive{
			{Serial: banger.DriveBase, Path: "/state/images/i/rootfs.ext4", ReadOnly: true},
			{Serial: banger.DriveModules, Path: "/state/kernels/k/modules.ext4", ReadOnly: true},
			{Serial: banger.DriveDisk, Path: "/state/vms/0123456789ab/disk.ext4"},
		}}
	tests := []struct {
		name   string
		change func(*vmm.Spec)
	}{
		{"tcg", func(*vmm.Spec) {}},
		{"kvm", func(s *vmm.Spec) { s.Accel = vmm.KVM }},
		{"vcpus", func(s *vmm.Spec) { s.VCPU, s.MemoryMiB, s.BootArgs = 4, 4096, nil }},
		{"commas", func(s *vmm.Spec) {
			s.TSCKHz, s.Drives = 0, []vmm.Drive{{Serial: "a,b", Path: "/state/x,readonly=on,,y.ext4"}}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			spec := base
			test.change(&spec)
			got := strings.ReplaceAll(strings.Join(Args(spec), " ")+"\n", " -", "\n-")
			golden := filepath.Join("testdata", test.name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("Args differs from %s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func TestExit(t *testing.T) {
	segv := &proc.ExitError{Program: "sleep", Status: -1, Signal: syscall.SIGSEGV}
	killed := &proc.ExitError{Status: -1, Signal: syscall.SIGKILL}
	tests := []struct {
		name   string
		ending ending
		want   vmm.Exit
	}{
		{"power-off", ending{events: events{shutdown: "guest-shutdown"}}, vmm.Exit{Cause: banger.ExitPowerOff, Detail: "the guest powered off"}},
		{"reboot", ending{events: events{shutdown: "guest-reset"}}, vmm.Exit{Cause: banger.ExitReboot, Detail: "the guest rebooted"}},
		{"panic", ending{events: events{panicked: true, shutdown: "guest-panic"}, err: &proc.ExitError{Status: 1}},
			vmm.Exit{Cause: banger.ExitPanic, Detail: "the guest's kernel panicked"}},
		{"panic event lost", ending{events: events{shutdown: "guest-panic"}}, vmm.Exit{Cause: banger.ExitPanic, Detail: "the guest's kernel panicked"}},
		{"killed", ending{killed: true, err: killed}, vmm.Exit{Cause: banger.ExitKilled, Detail: "banger killed QEMU"}},
		{"killed too late", ending{killed: true, events: events{shutdown: "guest-shutdown"}},
			vmm.Exit{Cause: banger.ExitPowerOff, Detail: "the guest powered off"}},
		{"killed by another", ending{err: killed}, vmm.Exit{Cause: banger.ExitCrash, Detail: "QEMU: ended by signal 9 (killed)"}},
		{"crash", ending{err: segv, words: "one\nlast \x1b[31mwords\n"},
			vmm.Exit{Cause: banger.ExitCrash, Detail: "QEMU: ended by signal 11 (segmentation fault): last ?[31mwords"}},
		{"told to end", ending{events: events{shutdown: "host-signal"}}, vmm.Exit{Cause: banger.ExitCrash, Detail: "QEMU was told to end: host-signal"}},
		{"silent", ending{}, vmm.Exit{Cause: banger.ExitCrash, Detail: "QEMU ended with exit status 0 and did not say why"}},
		{"inherited", ending{inherited: true}, vmm.Exit{Cause: banger.ExitCrash, Detail: "QEMU ended; its exit status went to a supervisor that died before"}},
		{"inherited, powered off", ending{inherited: true, events: events{shutdown: "guest-shutdown"}},
			vmm.Exit{Cause: banger.ExitPowerOff, Detail: "the guest powered off"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.ending.exit(); got != test.want {
				t.Errorf("exit() = %+v, want %+v", got, test.want)
			}
		})
	}
	if got := oneLine(strings.Repeat("é", maxDetail)); len(got) > maxDetail+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("oneLine of a long text = %q", got)
	}
}

// TestConfined looks at a real QEMU from outside: who it is and what it holds.
func TestConfined(t *testing.T) {
	spec := realSpec(t)
	d := newDriver(t)
	ctx, cancel := context.WithTimeout(t.Context(), vmmtest.Patience)
	defer cancel()
	var handle proc.Handle
	m, err := d.Start(ctx, spec, func(h proc.Handle) error { handle = h; return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill(context.Background())
	creds, err := proc.Creds(handle.PID)
	if err != nil {
		t.Fatal(err)
	}
	if creds.UIDs[0] == 0 || creds.UIDs[1] == 0 || creds.Permitted|creds.Effective|creds.Inheritable|creds.Ambient != 0 || !creds.NoNewPrivs || creds.Seccomp != 2 {
		t.Errorf("QEMU runs as %+v, want no root, no capability, no_new_privs and a seccomp filter", creds)
	}
	c := Confinement(spec)
	for _, path := range append(c.ReadOnly, append(c.ReadWrite, c.Exec...)...) {
		if path == spec.Dir || strings.HasPrefix(path, os.Getenv("HOME")) {
			t.Errorf("the domain of QEMU includes %s", path)
		}
	}
}

func TestStartSaysWhatQEMUSaid(t *testing.T) {
	spec := realSpec(t)
	spec.Kernel = filepath.Join(spec.Dir, "text")
	if err := os.WriteFile(spec.Kernel, []byte("no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := newDriver(t).Start(t.Context(), spec, func(proc.Handle) error { return nil })
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "QEMU: exit status 1: ") {
		t.Errorf("Start with a text as kernel = %v, want ErrUnavailable and QEMU's words", err)
	}
}

func TestMissingQEMU(t *testing.T) {
	dir := t.TempDir()
	_, err := newDriver(t).Start(t.Context(), vmm.Spec{ID: "0123456789ab", Dir: dir, Program: "qemu-system-none"}, nil)
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), "install") {
		t.Errorf("Start = %v, hint %q, want ErrUnavailable with an install hint", err, banger.HintOf(err))
	}
}
