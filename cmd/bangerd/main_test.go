package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/hostcheck"
	"banger/internal/lifecycle"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/store"
	"banger/internal/testenv"
	"banger/internal/vmm/qemu"
)

func TestMain(m *testing.M) {
	proc.MaybeConfineMain() // this binary is the prober's shim
	os.Exit(m.Run())
}

func TestFlags(t *testing.T) {
	for _, tc := range []struct {
		what string
		args []string
		root string
		err  string
	}{
		{"default", nil, "/state", ""},
		{"relative", []string{"--state-dir", "x/../y"}, "", ""},
		{"given", []string{"--state-dir", "/other"}, "/other", ""},
		{"argument", []string{"serve"}, "", `unexpected argument "serve"`},
		{"unknown flag", []string{"--stat-dir=x"}, "", "stat-dir"},
	} {
		t.Setenv("BANGER_STATE_DIR", "/state")
		m := &Main{Stderr: &bytes.Buffer{}}
		err := m.ParseFlags(tc.args)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: ParseFlags = %v, want %q", tc.what, err, tc.err)
		}
		if err == nil && (!filepath.IsAbs(m.dir.Root) || tc.root != "" && m.dir.Root != tc.root) {
			t.Errorf("%s: state directory %q, want %q", tc.what, m.dir.Root, tc.root)
		}
	}
}

func TestRun(t *testing.T) {
	dir := statedir.Dir{Root: t.TempDir()}
	out := &bytes.Buffer{}
	if status, err := (&Main{Stdout: out, dir: dir, showVersion: true}).Run(t.Context()); status != 0 || err != nil || out.String() != version+"\n" {
		t.Errorf("version: %d, %v, %q", status, err, out)
	}
	if os.Getuid() == 0 {
		status, err := (&Main{dir: dir}).Run(t.Context())
		if status != 1 || !errors.Is(err, banger.ErrRefused) || banger.HintOf(err) == "" {
			t.Errorf("as root: %d, %v, want refused with a hint", status, err)
		}
	}
	if left, _ := os.ReadDir(dir.Root); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// The exit status says how a database fits; nothing is changed to find that out.
func TestCheckMigrations(t *testing.T) {
	dir := statedir.Dir{Root: filepath.Join(t.TempDir(), "s")}
	check := func(what string, want int, kind error) {
		t.Helper()
		status, err := (&Main{dir: dir, checkMigrations: true}).Run(t.Context())
		if status != want || (kind == nil) != (err == nil) || kind != nil && !errors.Is(err, kind) {
			t.Errorf("%s: %d, %v, want %d, %v", what, status, err, want, kind)
		}
	}
	check("no state directory", 1, nil)
	if _, err := os.Stat(dir.Root); err == nil {
		t.Error("the check made a state directory")
	}
	if err := dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), dir.Database())
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	check("this version's", 0, nil)
	text, err := os.ReadFile(dir.Database())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir.Database(), append([]byte("damaged"), text[7:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	check("damaged", 2, banger.ErrCorrupt)
}

// Where VMs are, a database that is gone is no reason to begin anew: their directories would be taken for leftovers.
func TestLostDatabase(t *testing.T) {
	dir := statedir.Dir{Root: t.TempDir()}
	if err := errors.Join(os.Chmod(dir.Root, 0o700), dir.Ensure()); err != nil {
		t.Fatal(err)
	}
	if err := refuseLostDatabase(dir); err != nil {
		t.Errorf("a new state directory: %v", err)
	}
	disk := dir.VM("0123456789ab").Disk()
	if err := errors.Join(os.MkdirAll(filepath.Dir(disk), 0o700), os.WriteFile(disk, []byte("data"), 0o600)); err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		if err := refuseLostDatabase(dir); !errors.Is(err, banger.ErrCorrupt) || !strings.Contains(banger.HintOf(err), dir.VMs()) {
			t.Errorf("%s: %v (hint %q)", what, err, banger.HintOf(err))
		}
	}
	refused("no database")
	if err := os.WriteFile(dir.Database(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("an empty database")
	if err := os.WriteFile(dir.Database(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := refuseLostDatabase(dir); err != nil {
		t.Errorf("with a database: %v", err)
	}
}

// What is left to this computer is told as what it comes to.
func TestSettings(t *testing.T) {
	cfg := config.Loaded{Config: config.Default()}
	of := func(key string) string {
		for _, s := range settings(cfg, lifecycle.Sizes{VCPU: 3, MemoryMiB: 1536}) {
			if s.Key == key {
				return s.Value + " from " + s.From
			}
		}
		return ""
	}
	if cpu, memory := of("vm_defaults.vcpu"), of("vm_defaults.memory"); cpu != "3 from this computer" || memory != "1.5 GiB from this computer" {
		t.Errorf("%s, %s", cpu, memory)
	}
	cfg.VMDefaults.VCPU, cfg.VMDefaults.Memory = 7, 1<<30
	if cpu, memory := of("vm_defaults.vcpu"), of("vm_defaults.memory"); cpu != "7 from built in" || memory != "1 GiB from built in" {
		t.Errorf("configured: %s, %s", cpu, memory)
	}
}

func TestBootDeadline(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "90s": 90 * time.Second, "1m30s": 90 * time.Second, "10ms": -1, "90": -1, "-5s": -1} {
		t.Setenv("BANGER_BOOT_DEADLINE", text)
		got, err := bootDeadline()
		if want >= 0 && (got != want || err != nil) || want < 0 && !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("bootDeadline with %q = %v, %v, want %v", text, got, err, want)
		}
	}
}

func newTestProber(t *testing.T) *prober {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return newProber(statedir.Dir{Root: t.TempDir()}, slog.New(slog.DiscardHandler), self)
}

// A QEMU that is installed while the daemon runs is found at the next try.
func TestProbe(t *testing.T) {
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	p := newTestProber(t)
	_, err := p.probe(t.Context())
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), qemu.Program) || !strings.Contains(banger.HintOf(err), "install") {
		t.Errorf("probe without QEMU = %v (hint %q), want how to install it", err, banger.HintOf(err))
	}
	t.Setenv("PATH", path)
	program := testenv.RequireTool(t, qemu.Program)
	first, err := p.probe(t.Context())
	if err != nil || first.Program != program || first.Accel != "kvm" && (first.Accel != "tcg" || first.TSCKHz == 0) {
		t.Fatalf("probe = %+v, %v", first, err)
	}
	if second, err := p.probe(t.Context()); err != nil || second != first {
		t.Errorf("second probe = %+v, %v, want %+v", second, err, first)
	}
}

// The programs run on arm64, VMs do not yet: that is what the refusal says, before anything is looked for.
func TestProbeOnAnotherArchitecture(t *testing.T) {
	p := newTestProber(t)
	p.arch = "arm64"
	_, err := p.probe(t.Context())
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "do not run on arm64") || banger.HintOf(err) == "" {
		t.Errorf("probe on arm64 = %v (hint %q), want a refusal that names it", err, banger.HintOf(err))
	}
}

func TestProbeWaits(t *testing.T) {
	p := newTestProber(t)
	p.turn <- struct{}{} // somebody else probes
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.probe(ctx); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("probe = %v, want interrupted", err)
	}
}

// Whoever waits for the daemon reads one line, also when that daemon is not to run.
func TestReadyLine(t *testing.T) {
	program := filepath.Join(t.TempDir(), "bangerd")
	root, err := testenv.ModuleRoot()
	if err == nil {
		err = testenv.Build(root, program, "./cmd/bangerd", "")
	}
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	if err := os.Chmod(state, 0o755); err != nil { // refused, whoever runs this test
		t.Fatal(err)
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.Command(program, "--state-dir", state, "--ready-fd", "3")
	cmd.ExtraFiles = []*os.File{theirs}
	runErr := cmd.Run()
	theirs.Close()
	var line bytes.Buffer
	if _, err := line.ReadFrom(ready); err != nil {
		t.Fatal(err)
	}
	if runErr == nil || !strings.Contains(line.String(), `"kind":"refused"`) || strings.Count(line.String(), "\n") != 1 {
		t.Errorf("bangerd: %v, told %q", runErr, line.String())
	}
}

// Whoever reads a report gets the error in its place.
func TestReportOfAnError(t *testing.T) {
	var out bytes.Buffer
	m := &Main{Stdout: &out, Stderr: &bytes.Buffer{}, examine: true}
	m.report(&banger.Error{Kind: banger.ErrRefused, Op: "look", Hint: "another way"})
	if want := `{"kind":"refused","message":"look: refused","hint":"another way"}` + "\n"; out.String() != want {
		t.Errorf("report wrote %q, want %q", out.String(), want)
	}
}

// What a start refuses is what the doctor says.
func TestOldQEMU(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho QEMU emulator version 6.2.0\n"
	if err := os.WriteFile(filepath.Join(dir, qemu.Program), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	host, err := hostcheck.NewHost()
	if err != nil {
		t.Fatal(err)
	}
	host.Version = programVersion
	said := hostcheck.QEMU(t.Context(), host)
	p := newTestProber(t)
	for range 2 {
		_, err = p.probe(t.Context())
		if !errors.Is(err, banger.ErrUnavailable) || !strings.HasSuffix(err.Error(), said.Details) || banger.HintOf(err) != said.Hint || !strings.Contains(said.Details, "version 6.2") {
			t.Errorf("probe: %v with hint %q; the doctor says %+v", err, banger.HintOf(err), said)
		}
	}
}
