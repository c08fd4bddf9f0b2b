package smoke

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/testenv"
)

// soaking is what takes long in the tier soak and is shown in short in smoke.
func soaking[T any](short, long T) T {
	if testenv.Tier() == "soak" {
		return long
	}
	return short
}

// noise is n bytes, the same for each seed, and their hash as they go by.
type noise struct {
	source *rand.ChaCha8
	left   int64
	sum    hash.Hash
}

func newNoise(seed byte, n int64) *noise {
	return &noise{rand.NewChaCha8([32]byte{seed}), n, sha256.New()}
}

func (r *noise) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, _ := r.source.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	r.sum.Write(p[:n])
	return n, nil
}

// Much data, many sessions, and both at once on one connection.
func TestSSHUnderLoad(t *testing.T) { // alone: as newSSHUser says
	testenv.RequireTier(t, "smoke", "soak")
	u := newSSHUser(t)
	u.Must("vm", "run", "--name", "devbox", "--memory", "512M", "--", "true")
	t.Run("bulk", func(t *testing.T) { sshBulk(t, u, soaking[int64](20e6, 200e6)) })
	t.Run("many", func(t *testing.T) { sshMany(t, u) })
	t.Run("stress", func(t *testing.T) { sshStress(t, u, soaking(20*time.Second, 10*time.Minute)) })
}

// sshBulk sends size bytes by OpenSSH and gets them back. What arrives is what was sent.
func sshBulk(t *testing.T, u sshUser, size int64) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	in := u.command(ctx, "ssh", "devbox.vm", "tee /root/bulk | sha256sum")
	data := newNoise(1, size)
	in.Stdin = data
	start := time.Now()
	r := testenv.Capture(t, in)
	want := fmt.Sprintf("%x", data.sum.Sum(nil))
	if r.Status != 0 || !strings.HasPrefix(r.Stdout, want) {
		t.Fatalf("in: status %d, the guest has %q, want %s\n%s", r.Status, r.Stdout, want, r.Stderr)
	}
	t.Logf("in: %.1f MB/s", float64(size)/1e6/time.Since(start).Seconds())
	out := u.command(ctx, "ssh", "devbox.vm", "cat /root/bulk; rm /root/bulk")
	sum := sha256.New()
	out.Stdout = sum
	start = time.Now()
	if err := out.Run(); err != nil || fmt.Sprintf("%x", sum.Sum(nil)) != want {
		t.Fatalf("out: %v, %x came, want %s", err, sum.Sum(nil), want)
	}
	t.Logf("out: %.1f MB/s", float64(size)/1e6/time.Since(start).Seconds())
}

// sshMany runs a hundred commands by OpenSSH, each on a connection of its own, some twenty at once. Each gets its own input back, and its
// own status.
func sshMany(t *testing.T, u sshUser) {
	const all, atOnce = 100, 20
	slots := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	start := time.Now()
	for n := range all {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := u.command(ctx, "ssh", "-o", "ControlMaster=no", "-o", "ControlPath=none", "devbox.vm", fmt.Sprintf("cat; exit %d", n))
			cmd.Stdin = strings.NewReader(fmt.Sprintf("input %d\n", n))
			if r := testenv.Capture(t, cmd); r.Status != n || r.Stdout != fmt.Sprintf("input %d\n", n) {
				t.Errorf("command %d: status %d, %q\n%s", n, r.Status, r.Stdout, r.Stderr)
			}
		})
	}
	group.Wait()
	t.Logf("%d commands in %s", all, time.Since(start))
}

// sshStress is what stops SSH's own loops when their writes wait for each other: on the machine's one standing connection three streams
// go both ways as fast as they can, readers leave in the middle, and short commands come and go. None of them may stand still.
func sshStress(t *testing.T, u sshUser, length time.Duration) {
	const limit = 2 * time.Minute // of one short command
	end := time.Now().Add(length)
	var moved, short, left atomic.Int64
	var group sync.WaitGroup
	for n := range 3 {
		group.Go(func() {
			for seed := byte(n); time.Now().Before(end); seed += 3 {
				ctx, cancel := context.WithTimeout(t.Context(), length+10*limit)
				size := soaking[int64](4e6, 64e6)
				cmd, data, sum := u.Command(ctx, "vm", "exec", "devbox", "--", "cat"), newNoise(seed, size), sha256.New()
				cmd.Stdin, cmd.Stdout = data, sum
				err := cmd.Run()
				cancel()
				if err != nil || string(sum.Sum(nil)) != string(data.sum.Sum(nil)) {
					t.Errorf("a stream both ways: %v, it ends as %x, want %x", err, sum.Sum(nil), data.sum.Sum(nil))
					return
				}
				moved.Add(size)
			}
		})
	}
	group.Go(func() {
		for time.Now().Before(end) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			cmd := u.Command(ctx, "vm", "exec", "devbox", "--", "cat", "/dev/zero")
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err == nil {
				_, err = io.ReadFull(out, make([]byte, 100_000))
			}
			if err != nil {
				t.Errorf("what a reader leaves: %v", err)
			}
			cmd.Process.Kill()
			cmd.Wait()
			cancel()
			left.Add(1)
		}
	})
	group.Go(func() {
		for time.Now().Before(end) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			r := testenv.Capture(t, u.Command(ctx, "vm", "exec", "devbox", "--", "echo", "short"))
			cancel()
			if r.Status != 0 || r.Stdout != "short\n" {
				t.Errorf("a short command: status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
				return
			}
			short.Add(1)
		}
	})
	group.Wait()
	t.Logf("%s: %d MB both ways, %d short commands, %d streams whose reader left", length, moved.Load()/1e6, short.Load(), left.Load())
	if moved.Load() == 0 || short.Load() == 0 || left.Load() == 0 {
		t.Error("one of them did not get on at all")
	}
	testenv.WaitFor(t, time.Minute, "the guest's ends of all streams to go", func() bool {
		out, _ := inside(u.World, "devbox", "grep -lx cat /proc/[0-9]*/comm 2>/dev/null | wc -l")
		return out == "0"
	})
}
