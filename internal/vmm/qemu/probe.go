package qemu

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/proc"
	"banger/internal/vmm"
)

// Limits of a probe. The guest's own are counted from its first instruction.
const (
	probeStartTimeout = 20 * time.Second
	probeGuestTimeout = 3 * time.Second
	// A KVM that does not work is asked again after a while: the host may have been too busy to answer.
	probeDoubt = time.Hour
)

// Exit statuses of QEMU when the probe's guest has written to the debug port: value*2 + 1.
const (
	probeWorks = 0x21<<1 | 1
	probeWrong = 0x22<<1 | 1
)

// Verdict says whether KVM runs guests here, and why not.
type Verdict struct {
	Works  bool   `json:"works"`
	Reason string `json:"reason"`         // for people, of both answers
	Hint   string `json:"hint,omitempty"` // what would make it work; may be empty
}

// ProbeConfig is what a probe needs.
type ProbeConfig struct {
	Program string // QEMU, a path or a name in PATH
	Shim    string // as in Config
	Cache   string // file that remembers the verdict; empty: none
}

// ProbeKVM finds out whether KVM runs guests by running one: a ROM that does in less than a millisecond what every kernel
// does on its way up. A verdict is remembered for this boot, host kernel and QEMU.
// Errors: ErrUnavailable without QEMU; ErrInterrupted. A KVM that does not work is a verdict and no error.
func ProbeKVM(ctx context.Context, cfg ProbeConfig) (Verdict, error) {
	program, err := proc.LookPath(cfg.Program)
	if err != nil {
		return Verdict{}, err
	}
	if v := checkDevice("/dev/kvm"); !v.Works {
		return v, nil
	}
	key, err := newProbeKey(program)
	if err != nil {
		return Verdict{}, fmt.Errorf("probe KVM: %w", err)
	}
	if v, ok := readProbe(cfg.Cache, key, time.Now()); ok {
		return v, nil
	}
	v, err := runProbe(ctx, program, cfg.Shim, vmm.KVM)
	if err != nil {
		return Verdict{}, fmt.Errorf("probe KVM: %w", err)
	}
	if cfg.Cache == "" {
		return v, nil
	}
	return v, writeProbe(cfg.Cache, probeRecord{key, v, time.Now().UTC()})
}

// checkDevice gives a reason when there is nothing to probe.
func checkDevice(path string) Verdict {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
		return Verdict{Works: true}
	case errors.Is(err, fs.ErrNotExist):
		return Verdict{Reason: "this host has no " + path, Hint: "enable virtualization in the firmware, or nested virtualization of the machine that this host runs in"}
	case errors.Is(err, fs.ErrPermission):
		return Verdict{Reason: "this user may not open " + path, Hint: "sudo usermod --append --groups kvm $USER, then sign in again"}
	}
	return Verdict{Reason: err.Error()}
}

// probeKey is what a verdict holds for.
type probeKey struct {
	BootID   string    `json:"boot_id"`
	Kernel   string    `json:"kernel"` // uname -r
	QEMU     string    `json:"qemu"`   // the file that is run: another one may answer otherwise
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

func newProbeKey(program string) (probeKey, error) {
	boot, err := proc.BootID()
	if err != nil {
		return probeKey{}, err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return probeKey{}, err
	}
	info, err := os.Stat(program)
	if err != nil {
		return probeKey{}, err
	}
	return probeKey{boot, unix.ByteSliceToString(name.Release[:]), program, info.Size(), info.ModTime().UTC()}, nil
}

type probeRecord struct {
	probeKey
	Verdict
	At time.Time `json:"at"`
}

// readProbe gives the remembered verdict. A file that cannot be read is as good as none.
func readProbe(path string, key probeKey, now time.Time) (Verdict, bool) {
	data, err := os.ReadFile(path)
	var r probeRecord
	if err != nil || json.Unmarshal(data, &r) != nil || r.probeKey != key || r.Reason == "" {
		return Verdict{}, false
	}
	return r.Verdict, r.Works || now.Sub(r.At).Abs() < probeDoubt
}

func writeProbe(path string, r probeRecord) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}

// probeHex is the assembled probe/guest.s.txt, without its zeros: lines of an offset and bytes.
//
//go:embed probe/guest.hex
var probeHex string

const romSize = 64 << 10

// probeROM is the guest of the probe.
var probeROM = sync.OnceValues(func() ([]byte, error) {
	rom := make([]byte, romSize)
	for s := bufio.NewScanner(strings.NewReader(probeHex)); s.Scan(); {
		at, digits, _ := strings.Cut(s.Text(), " ")
		offset, err1 := strconv.ParseUint(at, 16, 16)
		code, err2 := hex.DecodeString(digits)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%w: the probe's guest: %w", banger.ErrCorrupt, err)
		}
		copy(rom[offset:], code)
	}
	return rom, nil
})

// runProbe runs the guest. The accelerator is a parameter because emulation must pass too: that tests the guest.
func runProbe(ctx context.Context, program, shim string, accel vmm.Accelerator) (_ Verdict, err error) {
	dir, err := os.MkdirTemp("", "banger-probe")
	if err != nil {
		return Verdict{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rom, err := probeROM()
	path := filepath.Join(dir, "guest.rom")
	if err := errors.Join(err, os.WriteFile(path, rom, 0o600)); err != nil {
		return Verdict{}, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return Verdict{}, err
	}
	defer ours.Close()
	p, err := startProbe(program, shim, path, accel, theirs)
	if err != nil {
		return Verdict{}, err
	}
	defer func() { err = errors.Join(err, end(p.Handle)) }()
	startCtx, cancel := context.WithTimeout(ctx, probeStartTimeout)
	defer cancel()
	stopped := make(chan struct{}, 1)
	client, err := newQMP(startCtx, ours, func(e qmpEvent) {
		if e.Name == "STOP" {
			select {
			case stopped <- struct{}{}:
			default:
			}
		}
	})
	if err == nil {
		err = client.do(startCtx, "cont")
	}
	switch {
	case ctx.Err() != nil:
		return Verdict{}, &banger.Error{Kind: banger.ErrInterrupted, Op: "run a guest", Err: context.Cause(ctx)}
	case startCtx.Err() != nil:
		return Verdict{Reason: "KVM does not work: QEMU did not start within " + probeStartTimeout.String()}, nil
	}
	// Another failure to talk to QEMU is its end, whose status tells more.
	return p.verdict(ctx, stopped)
}

func startProbe(program, shim, rom string, accel vmm.Accelerator, qmp *os.File) (*process, error) {
	defer qmp.Close()
	words, log, err := newLastWords()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	spec := vmm.Spec{Program: program, Accel: accel}
	args := append([]string{program, "-machine", "microvm,acpi=on"}, accelArgs(spec)...)
	args = append(args, "-m", "16M", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-no-reboot", "-bios", rom,
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-sandbox", sandbox,
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", fdQMP), "-mon", "chardev=qmp,mode=control")
	c := programConfinement(program, accel)
	c.ReadOnly = append(c.ReadOnly, rom)
	c.KeepFiles = 1
	path, args := proc.ConfinedCommand(shim, c, args...)
	p, err := proc.Start(proc.Spec{Path: path, Args: args, Dir: "/", Env: []string{}, ExtraFiles: []*os.File{qmp}, Log: log})
	if err != nil {
		return nil, err
	}
	return &process{p, words}, nil
}

// socketPair gives a connection and the file at its other end.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "qmp"), os.NewFile(uintptr(fds[1]), "qmp")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// verdict waits for the guest's word.
func (p *process) verdict(ctx context.Context, stopped <-chan struct{}) (Verdict, error) {
	const no = "KVM does not work: "
	timeout := time.NewTimer(probeGuestTimeout)
	defer timeout.Stop()
	select {
	case <-p.Done():
	case <-stopped:
		if err := end(p.Handle); err != nil {
			return Verdict{}, err
		}
		return Verdict{Reason: no + "it cannot run what a kernel does at its start" + p.firstWords()}, nil
	case <-timeout.C:
		return Verdict{Reason: no + "a guest of a few hundred instructions was not done within " + probeGuestTimeout.String()}, nil
	case <-ctx.Done():
		return Verdict{}, &banger.Error{Kind: banger.ErrInterrupted, Op: "run a guest", Err: context.Cause(ctx)}
	}
	err := p.Exit()
	var exit *proc.ExitError
	switch {
	case errors.As(err, &exit) && exit.Status == probeWorks:
		return Verdict{Works: true, Reason: "KVM runs guests"}, nil
	case errors.As(err, &exit) && exit.Status == probeWrong:
		return Verdict{Reason: no + "a guest found a step of a kernel's start done wrong"}, nil
	case errors.As(err, &exit) && exit.Signal == syscall.SIGABRT:
		return Verdict{Reason: no + "QEMU gave up" + p.firstWords()}, nil
	case exit != nil:
		exit.Program, exit.Stderr = "QEMU", p.words.String()
		return Verdict{Reason: no + oneLine(exit.Error())}, nil
	}
	return Verdict{Reason: no + "QEMU ended before its guest"}, nil
}

// firstWords is the first line that QEMU wrote: what follows a failure of KVM is a dump of registers.
func (p *process) firstWords() string {
	line, _, _ := strings.Cut(strings.TrimSpace(p.words.String()), "\n")
	if line == "" {
		return ""
	}
	return ": " + oneLine(line)
}
