package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"banger"
	"banger/internal/hostcheck"
	"banger/internal/lifecycle"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

// prober finds what runs guests here. It looks anew each time, so that a QEMU which was installed meanwhile is found; what is slow
// is remembered: the verdict on KVM in a file, the speed of the clock here.
type prober struct {
	dir  statedir.Dir
	log  *slog.Logger
	arch string        // the computer's, as GOARCH
	shim string        // path of this program, which confines what it runs
	turn chan struct{} // holds one value while somebody probes; the fields below are theirs

	tscKHz uint64
	said   string // the verdict that the log has
	fit    string // the QEMU that is new enough
}

func newProber(dir statedir.Dir, log *slog.Logger, shim string) *prober {
	return &prober{dir: dir, log: log, arch: runtime.GOARCH, shim: shim, turn: make(chan struct{}, 1)}
}

// probe gives QEMU and how it runs guests. Those who ask at once wait for one probe.
// Errors: ErrUnavailable with an install hint without QEMU, and on a computer of another architecture than the guests'; ErrInterrupted.
func (p *prober) probe(ctx context.Context) (lifecycle.VMM, error) {
	if err := hostcheck.Architecture(hostcheck.Host{Architecture: p.arch}).Err(); err != nil {
		return lifecycle.VMM{}, err
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return lifecycle.VMM{}, &banger.Error{Kind: banger.ErrInterrupted, Op: "probe", Err: context.Cause(ctx)}
	}
	program, err := proc.LookPath(qemu.Program)
	if err != nil {
		return lifecycle.VMM{}, err
	}
	if err := p.checkFit(ctx, program); err != nil {
		return lifecycle.VMM{}, err
	}
	verdict, err := qemu.ProbeKVM(ctx, qemu.ProbeConfig{Program: program, Shim: p.shim, Cache: p.dir.AccelProbe()})
	if err != nil {
		return lifecycle.VMM{}, banger.SpaceError(err, p.dir.Root)
	}
	if verdict.Reason != p.said {
		p.said = verdict.Reason
		p.log.InfoContext(ctx, "probed", "program", program, "kvm", verdict.Works, "reason", verdict.Reason, "hint", verdict.Hint)
	}
	if verdict.Works {
		return lifecycle.VMM{Program: program, Accel: string(vmm.KVM)}, nil
	}
	if p.tscKHz == 0 {
		p.tscKHz = vmm.TSCKHz()
	}
	return lifecycle.VMM{Program: program, Accel: string(vmm.TCG), TSCKHz: p.tscKHz}, nil
}

// checkFit refuses, in the doctor's words, a host that can't run what is asked for. It asks each file of QEMU once.
func (p *prober) checkFit(ctx context.Context, program string) error {
	info, err := os.Stat(program)
	if err != nil {
		return err
	}
	file := fmt.Sprint(program, info.Size(), info.ModTime())
	if file == p.fit {
		return nil
	}
	host, err := hostcheck.NewHost()
	if err != nil {
		return err
	}
	host.Version = programVersion
	if err := hostcheck.QEMU(ctx, host).Err(); err != nil {
		return err
	}
	p.fit = file
	return nil
}
