package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testenv"
	"banger/internal/vmm"
)

// TestProbeGuest assembles the probe's guest from its source and compares.
func TestProbeGuest(t *testing.T) {
	object, raw := filepath.Join(t.TempDir(), "guest.o"), filepath.Join(t.TempDir(), "guest.rom")
	for _, cmd := range []*exec.Cmd{
		exec.Command(testenv.RequireTool(t, "as"), "--64", "-o", object, "probe/guest.s.txt"),
		exec.Command(testenv.RequireTool(t, "objcopy"), "-O", "binary", "-j", ".text", object, raw),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd.Path, err, out)
		}
	}
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("probe/guest.hex", hexLines(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := probeROM(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("probe/guest.hex is not what probe/guest.s.txt assembles to (%v): run the test with -update", err)
	}
}

// hexLines writes what is not zero, 32 bytes a line.
func hexLines(rom []byte) []byte {
	const width = 32
	var out bytes.Buffer
	for at := 0; at < len(rom); at += width {
		if line := rom[at : at+width]; len(bytes.Trim(line, "\x00")) > 0 {
			fmt.Fprintf(&out, "%04x %s\n", at, hex.EncodeToString(line))
		}
	}
	return out.Bytes()
}

// The probe's guest must pass where every guest passes.
func TestProbeGuestRunsEmulated(t *testing.T) {
	program := testenv.RequireTool(t, Program)
	v, err := runProbe(t.Context(), program, newDriver(t).cfg.Shim, vmm.TCG)
	if err != nil || !v.Works {
		t.Errorf("runProbe with TCG = %+v, %v, want it to work", v, err)
	}
}

func TestProbeKVM(t *testing.T) {
	testenv.RequireTool(t, Program)
	cfg := ProbeConfig{Program: Program, Shim: newDriver(t).cfg.Shim, Cache: filepath.Join(t.TempDir(), "accel.json")}
	v, err := ProbeKVM(t.Context(), cfg)
	if err != nil || v.Reason == "" {
		t.Fatalf("ProbeKVM = %+v, %v, want a verdict with a reason", v, err)
	}
	t.Logf("%+v", v)
	again, err := ProbeKVM(t.Context(), cfg)
	if err != nil || again != v {
		t.Errorf("second ProbeKVM = %+v, %v, want %+v", again, err, v)
	}
}

func TestProbeErrors(t *testing.T) {
	_, err := ProbeKVM(t.Context(), ProbeConfig{Program: "qemu-system-none"})
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), "install") {
		t.Errorf("ProbeKVM without QEMU = %v, want ErrUnavailable with a hint", err)
	}
	program := testenv.RequireTool(t, Program)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := runProbe(ctx, program, newDriver(t).cfg.Shim, vmm.TCG); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("runProbe with a dead context = %v, want ErrInterrupted", err)
	}
}

// fakes are the ways in which a QEMU with KVM ends, played by this binary under a name that begins with fakePrefix.
var fakes = []struct {
	name   string
	play   func(qmp *os.File)
	works  bool
	reason string
}{
	{"works", func(f *os.File) { answerQMP(f); os.Exit(probeWorks) }, true, "KVM runs guests"},
	{"wrong", func(f *os.File) { answerQMP(f); os.Exit(probeWrong) }, false, "done wrong"},
	{"asserts-at-once", func(*os.File) { say("failed to set MSR\nAssertion"); abort() }, false, "QEMU gave up: failed to set MSR"},
	{"asserts", func(f *os.File) { answerQMP(f); abort() }, false, "QEMU gave up"},
	{"refuses", func(*os.File) { say("Could not access KVM: none"); os.Exit(1) }, false, "QEMU: exit status 1: Could not access KVM: none"},
	{"internal-error", func(f *os.File) {
		answerQMP(f)
		say("KVM internal error")
		f.WriteString(`{"event": "STOP"}` + "\n")
		select {}
	}, false,
		"a kernel does at its start: KVM internal error"},
	{"stuck", func(f *os.File) { answerQMP(f); time.Sleep(time.Hour) }, false, "not done within 3s"},
	{"ends", func(f *os.File) { answerQMP(f); os.Exit(0) }, false, "QEMU ended before its guest"},
}

const fakePrefix = "fake-"

// playFake is the main of a fake QEMU.
func playFake(name string) {
	for _, fake := range fakes {
		if fake.name == name {
			go fake.play(os.NewFile(fdQMP, "qmp"))
			time.Sleep(time.Hour)
		}
	}
	os.Exit(99)
}

func say(text string) { fmt.Fprintln(os.Stderr, text) }

// abort ends this process by SIGABRT without the words of Go's own handler.
func abort() {
	var act [4]uint64 // SIG_DFL, no flags
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(syscall.SIGABRT), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
	syscall.Kill(os.Getpid(), syscall.SIGABRT)
}

// answerQMP greets and carries out what a probe asks.
func answerQMP(f *os.File) {
	fmt.Fprintln(f, `{"QMP": {}}`)
	lines := bufio.NewScanner(f)
	for id := 1; id <= 2 && lines.Scan(); id++ {
		fmt.Fprintf(f, `{"return": {}, "id": "%d"}`+"\n", id)
	}
}

func TestProbeVerdicts(t *testing.T) {
	shim := newDriver(t).cfg.Shim
	for _, fake := range fakes {
		t.Run(fake.name, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(t.TempDir(), fakePrefix+fake.name)
			if err := os.Symlink(shim, program); err != nil {
				t.Fatal(err)
			}
			v, err := runProbe(t.Context(), program, shim, vmm.KVM)
			if err != nil || v.Works != fake.works || !strings.Contains(v.Reason, fake.reason) {
				t.Errorf("runProbe = %+v, %v, want works = %v, %q", v, err, fake.works, fake.reason)
			}
		})
	}
}

func TestProbeCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accel.json")
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	key := probeKey{BootID: "b", Kernel: "6.1", QEMU: "/q", Size: 1, Modified: now}
	other := func(change func(*probeKey)) probeKey { k := key; change(&k); return k }
	works, broken := Verdict{Works: true, Reason: "yes"}, Verdict{Reason: "no"}
	tests := []struct {
		name   string
		stored Verdict
		key    probeKey
		at     time.Time
		want   bool
	}{
		{"same", works, key, now, true},
		{"works long ago", works, key, now.Add(-240 * time.Hour), true},
		{"broken lately", broken, key, now.Add(-time.Minute), true},
		{"broken long ago", broken, key, now.Add(-2 * time.Hour), false},
		{"broken in the future", broken, key, now.Add(2 * time.Hour), false},
		{"another boot", works, other(func(k *probeKey) { k.BootID = "c" }), now, false},
		{"another kernel", works, other(func(k *probeKey) { k.Kernel = "6.2" }), now, false},
		{"another QEMU", works, other(func(k *probeKey) { k.Size = 2 }), now, false},
	}
	for _, test := range tests {
		if err := writeProbe(path, probeRecord{test.key, test.stored, test.at}); err != nil {
			t.Fatal(err)
		}
		if v, ok := readProbe(path, key, now); ok != test.want || ok && v != test.stored {
			t.Errorf("%s: readProbe = %+v, %v, want %v", test.name, v, ok, test.want)
		}
	}
	for name, content := range map[string]string{"damaged": "{", "empty": "", "no reason": "{}"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if v, ok := readProbe(path, probeKey{}, now); ok {
			t.Errorf("%s: readProbe = %+v, want none", name, v)
		}
	}
}

func TestCheckDevice(t *testing.T) {
	dir := t.TempDir()
	closed, open := filepath.Join(dir, "closed"), filepath.Join(dir, "open")
	if err := errors.Join(os.WriteFile(closed, nil, 0), os.WriteFile(open, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if v := checkDevice(open); !v.Works {
		t.Errorf("a device that opens: %+v", v)
	}
	for path, word := range map[string]string{filepath.Join(dir, "none"): "has no", closed: "may not open"} {
		if os.Getuid() == 0 && path == closed {
			continue
		}
		if v := checkDevice(path); v.Works || !strings.Contains(v.Reason, word) || v.Hint == "" {
			t.Errorf("checkDevice(%s) = %+v", path, v)
		}
	}
}
