package ext4

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/testenv"
	"banger/internal/tree"
)

// BenchmarkMemory measures the peak of resident memory of `banger disk create`.
func BenchmarkMemory(b *testing.B) {
	banger, tarFile := program(b), rootfsTar(b)
	files := seed(b, 10_000)
	for _, c := range []struct {
		name, size string
		stdin      func() io.Reader
		args       []string
	}{
		{"10000-files", "8G", nil, []string{"--from-dir", files}},
		{"rootfs-tar", "4G", nil, []string{"--from-tar", tarFile}},
		{"million-entries", "32G", million, []string{"--from-tar", "-"}},
	} {
		out := filepath.Join(b.TempDir(), "out.ext4")
		cmd := exec.Command(banger, append([]string{"disk", "create", out, "--size", c.size, "--no-sync"}, c.args...)...)
		if c.stdin != nil {
			cmd.Stdin = c.stdin()
		}
		b.ReportMetric(float64(peak(b, cmd))/1e6, c.name+"-MB")
	}
}

// peak runs cmd and gives the most memory that it had. What the parent has does not count, as it would in its rusage.
func peak(b *testing.B, cmd *exec.Cmd) (bytes int64) {
	b.Helper()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				b.Fatal(err)
			}
			return bytes
		case <-time.After(2 * time.Millisecond):
			bytes = max(bytes, highWater(cmd.Process.Pid))
		}
	}
}

// highWater is 0 when the process is gone.
func highWater(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// million is a tar stream of a million empty files.
func million() io.Reader {
	r, w := io.Pipe()
	go func() {
		buffered := bufio.NewWriterSize(w, 1<<20)
		stream := tar.NewWriter(buffered)
		var err error
		for i := 0; i < 1_000_000 && err == nil; i++ {
			err = stream.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/file-with-a-name-%d", i/1000, i), Mode: 0o644, ModTime: time.Unix(1_700_000_000, 0)})
		}
		if err == nil {
			err = stream.Close()
		}
		if err == nil {
			err = buffered.Flush()
		}
		w.CloseWithError(err)
	}()
	return r
}

// BenchmarkMounted tells how much a blank disk grows on the host while it is mounted for a minute.
func BenchmarkMounted(b *testing.B) {
	image := filepath.Join(b.TempDir(), "image.ext4")
	if err := ours(8<<30, false, tree.Of())(image); err != nil {
		b.Fatal(err)
	}
	before := allocated(image)
	_, unmount := testenv.Mount(b, image)
	time.Sleep(time.Minute)
	unmount()
	b.ReportMetric(float64(allocated(image)-before)/1024, "growth-KiB")
	testenv.CheckExt4(b, image)
}
