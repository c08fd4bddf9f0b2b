// Package interactive measures the time to interactive: from the start of a command that makes a machine until the first output of a
// command in that machine has arrived. One after the other, in turns with QEMU alone and with two of Debian's own tools, then many at once.
//
// BANGER_BENCH_RUNS is how many machines run one after the other (100); the other ways run a tenth of that. Debian's tools need the
// packages debvm, autopkgtest and qemu-utils; a way that has none is said to be missing.
package interactive

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger/bench/bare"
	"banger/internal/testenv"
)

const (
	word   = "interactive"   // what the command in the machine says
	atOnce = 10              // machines
	memory = "1G"            // of each: ten fit
	limit  = 5 * time.Minute // for one machine
)

func TestMain(m *testing.M) { bare.Main(m) }

// way is one tool's path to a command's output.
type way struct {
	name  string
	every int // it runs in every round with a multiple of this number
	run   func() (time.Duration, error)

	took   []time.Duration
	failed int
}

func (w *way) once(b *testing.B) {
	took, err := w.run()
	if err != nil {
		b.Logf("%s: %v", w.name, err)
		w.failed++
		return
	}
	w.took = append(w.took, took)
}

// report logs the percentiles, by nearest rank, and returns the median in seconds.
func (w *way) report(b *testing.B) float64 {
	all := len(w.took) + w.failed
	if len(w.took) == 0 {
		b.Errorf("%-44s none of %d succeeded", w.name, all)
		return math.NaN()
	}
	slices.Sort(w.took)
	rank := func(share float64) float64 {
		return w.took[int(math.Ceil(share*float64(len(w.took))))-1].Seconds()
	}
	b.Logf("%-44s median %6.2f s, p95 %6.2f s, p99 %6.2f s, %d of %d succeeded", w.name, rank(0.5), rank(0.95), rank(0.99), len(w.took), all)
	return rank(0.5)
}

// BenchmarkInteractive is the whole comparison.
func BenchmarkInteractive(b *testing.B) {
	w := testenv.NewWorld(b)
	w.LogHost()
	run := func(image string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			ctx, cancel := context.WithTimeout(b.Context(), limit)
			defer cancel()
			return untilWord(w.Command(ctx, "vm", "run", "--rm", "--memory", memory, "--image", image, "--", "echo", word))
		}
	}
	runs := testenv.Number("BANGER_BENCH_RUNS", 100)
	tenth := max(1, min(10, runs/10))
	const slim, full = "debian-bookworm-slim", "systemd"
	w.Must("image", "build", full, "--from", "debian:bookworm", "--packages", "systemd-sysv,udev,openssh-server")
	banger := &way{name: "banger vm run", every: 1, run: run(slim)}
	ways := []*way{
		banger,
		{name: "QEMU alone, until the agent answers", every: tenth, run: bare.NewMachines(b, w, "--memory", memory).Run},
		{name: "banger vm run, systemd as init", every: tenth, run: run(full)},
	}
	others, err := debians(b, w)
	if err != nil {
		b.Logf("without Debian's tools: %v", err)
	}
	for _, o := range others {
		o.every = tenth
		ways = append(ways, o)
	}
	for round := range runs {
		for _, way := range ways {
			if round%way.every == 0 {
				way.once(b)
			}
		}
	}
	many := &way{name: fmt.Sprintf("banger vm run, %d at once", atOnce)}
	var wait sync.WaitGroup
	var lock sync.Mutex
	for range atOnce {
		wait.Go(func() {
			took, err := run(slim)()
			lock.Lock()
			defer lock.Unlock()
			if err != nil {
				b.Logf("%s: %v", many.name, err)
				many.failed++
				return
			}
			many.took = append(many.took, took)
		})
	}
	wait.Wait()
	median := banger.report(b)
	for _, way := range ways[1:] {
		if m := way.report(b); way.name == ways[1].name {
			b.ReportMetric(median/m, "banger/bare")
		} else if strings.Contains(way.name, "-") {
			b.ReportMetric(m/median, strings.Fields(way.name)[0]+"/banger")
		}
	}
	burst := many.report(b)
	b.ReportMetric(median, "median-s")
	b.ReportMetric(burst, "at-once-s")
	b.ReportMetric(100*float64(len(banger.took)+len(many.took))/float64(runs+atOnce), "success-%")
}

// untilWord starts cmd and gives the time until the word was a line of its output. It returns when cmd has ended.
func untilWord(cmd *exec.Cmd) (time.Duration, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var took time.Duration
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.TrimSpace(lines.Text()) == word {
			took = time.Since(begun)
		}
	}
	if err := cmd.Wait(); err != nil || took == 0 {
		return 0, fmt.Errorf("%s: %v, the word seen: %t\n%s", cmd.Args[0], err, took != 0, tail(stderr.Bytes()))
	}
	return took, nil
}

func tail(text []byte) []byte { return text[max(0, len(text)-2000):] }

// rootShell starts what autopkgtest-virt-qemu talks to.
const rootShell = `[Unit]
Description=root shell on the second virtio console
[Service]
ExecStart=/bin/sh
StandardInput=tty-fail
StandardOutput=tty
StandardError=tty
TTYPath=/dev/hvc1
[Install]
WantedBy=multi-user.target
`

// tool runs Debian's programs as the ordinary user, in a directory with images of Debian made by debvm-create.
type tool struct {
	b   *testing.B
	w   *testenv.World
	dir string
}

// debians makes the images for Debian's tools and gives them.
func debians(b *testing.B, w *testenv.World) ([]*way, error) {
	for _, name := range []string{"debvm-create", "autopkgtest-virt-qemu", "qemu-img"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	t := tool{b: b, w: w, dir: w.User.Dir(b)}
	if err := os.Chmod(t.dir, 0o711); err != nil { // mmdebstrap enters it as another of the user's ids
		return nil, err
	}
	sources := "/etc/apt/sources.list"
	if _, err := os.Stat(sources); err != nil {
		sources = "/etc/apt/sources.list.d/debian.sources"
	}
	if err := os.WriteFile(t.path("shell.service"), []byte(rootShell), 0o644); err != nil {
		return nil, err
	}
	steps := [][]string{
		{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"},
		{"debvm-create", "-k", "key.pub", "-o", "image", "-r", "bookworm", "--", sources},
		{"debvm-create", "-o", "testbed", "-r", "bookworm", "--", sources, "--include=linux-image-amd64,python3", // the cloud kernel has no 9p, and what runs commands is in Python
			"--customize-hook=upload shell.service /etc/systemd/system/autopkgtest.service",
			`--customize-hook=chroot "$1" systemctl enable autopkgtest.service`},
	}
	for _, s := range steps {
		if out, err := t.command(b.Context(), s...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", s[0], err, tail(out))
		}
	}
	for link, file := range map[string]string{"vmlinuz": "kernel", "initrd.img": "initrd"} {
		stat, err := t.command(b.Context(), "/sbin/debugfs", "-R", "stat "+link, "testbed").Output()
		if err != nil {
			return nil, err
		}
		_, target, _ := strings.Cut(string(stat), `Fast link dest: "`)
		target, _, _ = strings.Cut(target, `"`)
		if err := t.command(b.Context(), "/sbin/debugfs", "-R", "dump "+target+" "+file, "testbed").Run(); err != nil {
			return nil, err
		}
	}
	// The tool takes its options for QEMU apart at spaces, and asks for KVM where the device exists.
	wrapper := fmt.Sprintf("#!/bin/sh\nexec qemu-system-x86_64 \"$@\" -machine q35,accel=tcg -cpu max -kernel %s -initrd %s -append 'root=/dev/vda rw console=ttyS0 quiet'\n",
		t.path("kernel"), t.path("initrd"))
	if err := os.WriteFile(t.path("qemu"), []byte(wrapper), 0o755); err != nil {
		return nil, err
	}
	return []*way{{name: "debvm-run and ssh", run: t.debvm}, {name: "autopkgtest-virt-qemu", run: t.autopkgtest}}, nil
}

func (t tool) path(name string) string { return filepath.Join(t.dir, name) }

// command is a process group of its own, which is killed when ctx ends.
func (t tool) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = t.dir
	cmd.Env = []string{"HOME=" + t.dir, "USER=" + t.w.User.Name, "LOGNAME=" + t.w.User.Name, "TMPDIR=" + t.dir,
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	t.w.User.As(cmd)
	return cmd
}

// debvm boots the image, which is not changed, and runs a command in it by ssh.
func (t tool) debvm() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(t.b.Context(), limit)
	defer cancel()
	const port = "42299"
	machine := t.command(ctx, "debvm-run", "-i", "image", "-s", port, "--", "-snapshot")
	begun := time.Now()
	if err := machine.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = machine.Cancel()
		_ = machine.Wait()
	}()
	if err := t.command(ctx, "debvm-waitssh", "-q", "-t", "240", port).Run(); err != nil {
		return 0, fmt.Errorf("debvm-waitssh: %w", err)
	}
	_, err := untilWord(t.command(ctx, "ssh", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-i", "key", "-p", port,
		"root@127.0.0.1", "echo", word))
	return time.Since(begun), err
}

// autopkgtest opens a testbed, which lies on an overlay of the image, and runs a command in it.
func (t tool) autopkgtest() (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(t.b.Context(), limit)
	defer cancel()
	var stderr bytes.Buffer
	defer func() {
		if err != nil {
			err = fmt.Errorf("autopkgtest-virt-qemu: %w\n%s", err, tail(stderr.Bytes()))
		}
	}()
	bed := t.command(ctx, "autopkgtest-virt-qemu", "--timeout-reboot=240", "--ram-size=1024", "--qemu-command="+t.path("qemu"), t.path("testbed"))
	bed.Stderr = &stderr
	in, err1 := bed.StdinPipe()
	out, err2 := bed.StdoutPipe()
	begun := time.Now()
	if err := errors.Join(err1, err2, bed.Start()); err != nil {
		return 0, err
	}
	defer func() {
		_, _ = io.WriteString(in, "close\nquit\n")
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = bed.Wait()
	}()
	lines := bufio.NewScanner(out)
	answer := func() (string, error) {
		if !lines.Scan() {
			return "", errors.Join(lines.Err(), io.ErrUnexpectedEOF)
		}
		rest, ok := strings.CutPrefix(lines.Text(), "ok")
		if !ok {
			return "", fmt.Errorf("answered %q", lines.Text())
		}
		return strings.TrimSpace(rest), nil
	}
	if _, err := answer(); err != nil {
		return 0, err
	}
	var run string
	for _, command := range []string{"open", "print-execute-command"} {
		if _, err := io.WriteString(in, command+"\n"); err != nil {
			return 0, err
		}
		if run, err = answer(); err != nil {
			return 0, err
		}
	}
	args := append(strings.Split(run, ","), "echo", word)
	if _, err := untilWord(t.command(ctx, args...)); err != nil {
		return 0, err
	}
	return time.Since(begun), nil
}
