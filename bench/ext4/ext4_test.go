// Package ext4 measures how fast images are made: by banger, by mke2fs, and by two flows that banger replaces. All ways take
// turns in one run; what is printed are medians. Ratios within one table mean something, times from another computer do not.
//
// BANGER_BENCH_TAR names the tar of a root file system to measure with (that of debian-bookworm-slim); BANGER_BENCH_RUNS is
// how often each way runs (5).
package ext4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"banger/internal/ext4/patch"
	"banger/internal/ext4/read"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

func TestMain(m *testing.M) {
	testenv.Main(m)
}

// way is one way to make the same image.
type way struct {
	name string
	runs int // at most; 0: as many as the others
	make func(out string) error
}

// result is what one way took.
type result struct {
	times     []time.Duration
	allocated int64
}

func (r result) median() time.Duration {
	slices.Sort(r.times)
	return r.times[len(r.times)/2]
}

func runs(b *testing.B) int {
	n, err := strconv.Atoi(os.Getenv("BANGER_BENCH_RUNS"))
	if err != nil || n < 1 {
		return 5
	}
	return n
}

// race lets all ways take turns and prints a table; times are also given over those of the last way, the floor.
// The medians, in ms, are by the ways' names.
func race(b *testing.B, title string, ways []way) (medians map[string]float64) {
	b.Helper()
	medians = map[string]float64{}
	results := make([]result, len(ways))
	out := filepath.Join(b.TempDir(), "out.ext4")
	for round := range runs(b) + 1 { // the first warms up
		for i, w := range ways {
			if w.runs > 0 && round >= w.runs {
				continue
			}
			_ = command("sync", "-f", filepath.Dir(out))
			start := time.Now()
			if err := w.make(out); err != nil {
				b.Fatalf("%s: %s: %v", title, w.name, err)
			}
			took := time.Since(start)
			if round > 0 || w.runs == 1 {
				results[i].times = append(results[i].times, took)
			}
			results[i].allocated = allocated(out)
			_ = os.Remove(out)
		}
	}
	floor := results[len(results)-1].median()
	fmt.Printf("\n%s\n", title)
	tw := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "way\tmedian ms\tfastest ms\truns\tx floor\tallocated KiB\t")
	for i, w := range ways {
		r := results[i]
		medians[w.name] = ms(r.median())
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%d\t%.2f\t%d\t\n", w.name, ms(r.median()), ms(r.times[0]), len(r.times), float64(r.median())/float64(floor), r.allocated>>10)
	}
	tw.Flush()
	return medians
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func allocated(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// seed makes n small files in directories of a hundred, from a fixed random seed.
func seed(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i/100))
		if i%100 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		data := bytes.Repeat([]byte{byte(i), byte(r.Uint32())}, r.IntN(8192))
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%d", i)), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func options(size int64, sync bool) write.Options {
	return write.Options{SizeBytes: size, Sync: sync, UUID: [16]byte{1}, HashSeed: [16]byte{2}, Time: time.Unix(1_700_000_000, 0)}
}

func ours(size int64, sync bool, src tree.Source) func(string) error {
	return func(out string) error {
		_, err := write.CreateFile(context.Background(), out, options(size, sync), src)
		return err
	}
}

// floorOf writes the bytes of a finished image, which are in memory already, to a sparse file, after before has read what
// the image is made from.
func floorOf(b *testing.B, size int64, src tree.Source, before func() error) func(string) error {
	b.Helper()
	image := filepath.Join(b.TempDir(), "finished.ext4")
	if err := ours(size, false, src)(image); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(image)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	parts := map[int64][]byte{}
	for off := int64(0); ; {
		start, err := f.Seek(off, 3) // SEEK_DATA
		if err != nil {
			break
		}
		end, err := f.Seek(start, 4) // SEEK_HOLE
		if err != nil {
			b.Fatal(err)
		}
		part := make([]byte, end-start)
		if _, err := f.ReadAt(part, start); err != nil {
			b.Fatal(err)
		}
		parts[start], off = part, end
	}
	order := slices.Sorted(maps.Keys(parts))
	return func(out string) error {
		if err := before(); err != nil {
			return err
		}
		f, err := os.Create(out)
		if err != nil {
			return err
		}
		err = f.Truncate(size)
		for _, off := range order {
			if err == nil {
				_, err = f.WriteAt(parts[off], off)
			}
		}
		return errors.Join(err, f.Close())
	}
}

// readAll reads every file below dir.
func readAll(dir string) func() error {
	buf := make([]byte, 1<<20)
	return func() error {
		return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			for err == nil {
				_, err = f.Read(buf)
			}
			if err == io.EOF {
				err = nil
			}
			return err
		})
	}
}

// oldFlow copies every byte of a 512 MiB image that holds the seed, checks it and makes it larger.
func oldFlow(b *testing.B, size int64, dir string) func(string) error {
	b.Helper()
	image := testenv.Mke2fs(b, 512<<20, "-t", "ext4", "-N", "40000", "-d", dir)
	return func(out string) error {
		return errors.Join(command("cp", "--sparse=never", image, out), command("sync", out), command("e2fsck", "-fp", out),
			os.Truncate(out, size), command("resize2fs", out))
	}
}

// newerFlow makes an empty image, dumps the seed out of one and writes it with one debugfs for each file.
func newerFlow(b *testing.B, size int64, dir string) func(string) error {
	b.Helper()
	image := testenv.Mke2fs(b, 512<<20, "-t", "ext4", "-N", "40000", "-d", dir)
	return func(out string) error {
		dump := b.TempDir()
		if err := errors.Join(os.WriteFile(out, nil, 0o600), os.Truncate(out, size), command("mkfs.ext4", "-q", "-F", out), command("debugfs", "-R", "rdump / "+dump, image)); err != nil {
			return err
		}
		return filepath.WalkDir(dump, func(path string, d fs.DirEntry, err error) error {
			name := strings.TrimPrefix(path, dump)
			switch {
			case err != nil || name == "" || name == "/lost+found":
				return err
			case d.IsDir():
				return command("debugfs", "-w", "-R", "mkdir "+name, out)
			}
			return command("debugfs", "-w", "-R", "write "+path+" "+name, out)
		})
	}
}

func mke2fs(size int64, from string) func(string) error {
	return func(out string) error {
		return errors.Join(os.WriteFile(out, nil, 0o600), os.Truncate(out, size), command("mke2fs", "-q", "-F", "-t", "ext4", "-d", from, out))
	}
}

func program(b *testing.B) string {
	b.Helper()
	root, err := testenv.ModuleRoot()
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "banger")
	if err := testenv.Build(root, path, "./cmd/banger", "bench"); err != nil {
		b.Fatal(err)
	}
	return path
}

func BenchmarkCreate(b *testing.B) {
	banger := program(b)
	for _, c := range []struct {
		files int
		size  int64
	}{{0, 8 << 30}, {20, 8 << 30}, {1000, 64 << 30}, {10000, 8 << 30}} {
		dir := seed(b, c.files)
		src := tree.FromDir(dir)
		ways := []way{{name: "old flow", make: oldFlow(b, c.size, dir)}}
		if c.files > 0 {
			w := way{name: "newer flow", make: newerFlow(b, c.size, dir)}
			if c.files > 100 {
				w.runs = 1
			}
			ways = append(ways, w)
		}
		size := strconv.FormatInt(c.size, 10)
		ways = append(ways,
			way{name: "mke2fs -d", make: mke2fs(c.size, dir)},
			way{name: "banger, a process", make: func(out string) error {
				return command(banger, "disk", "create", out, "--size", size, "--from-dir", dir, "--no-sync")
			}},
			way{name: "banger", make: ours(c.size, false, src)},
			way{name: "banger, fsync", make: ours(c.size, true, src)},
			way{name: "floor: read + pwrite", make: floorOf(b, c.size, src, readAll(dir))})
		took := race(b, fmt.Sprintf("%d files, %d GiB", c.files, c.size>>30), ways)
		b.ReportMetric(took["banger"], fmt.Sprintf("%d-ms", c.files))
		b.ReportMetric(took["banger"]/took["floor: read + pwrite"], fmt.Sprintf("%d/floor", c.files))
		if c.files > 0 {
			b.ReportMetric(took["newer flow"]/took["banger"], fmt.Sprintf("newer/%d", c.files))
			b.ReportMetric(took["newer flow"]/took["banger, a process"], fmt.Sprintf("newer/process-%d", c.files))
		}
		b.ReportMetric(took["mke2fs -d"]/took["banger, a process"], fmt.Sprintf("mke2fs/process-%d", c.files))
	}
}

// rootfsTar gives the tar of a Debian root file system.
func rootfsTar(b *testing.B) string {
	b.Helper()
	if name := os.Getenv("BANGER_BENCH_TAR"); name != "" {
		return name
	}
	images, err := filepath.Glob(filepath.Join(testenv.NewWorld(b).State, "images", "*", "rootfs.ext4"))
	if err != nil || len(images) != 1 {
		b.Fatalf("images %v, %v", images, err)
	}
	image, err := os.Open(images[0])
	if err != nil {
		b.Fatal(err)
	}
	defer image.Close()
	info, err := image.Stat()
	if err != nil {
		b.Fatal(err)
	}
	fsys, err := read.Open(image, info.Size())
	if err != nil {
		b.Fatal(err)
	}
	name := filepath.Join(b.TempDir(), "rootfs.tar")
	out, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	entries := 0
	src := tree.Filter(fsys.Source("."), func(e *tree.Entry) bool { // as tar writes it: one header for most entries
		entries++
		e.ModTime, e.AccessTime, e.ChangeTime = e.ModTime.Truncate(time.Second), time.Time{}, time.Time{}
		return true
	})
	if err := errors.Join(tree.WriteTar(out, src), out.Close()); err != nil {
		b.Fatal(err)
	}
	if info, err = os.Stat(name); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\nthe tar has %d entries in %d MB\n", entries, info.Size()/1_000_000)
	return name
}

func BenchmarkRootfs(b *testing.B) {
	name, banger := rootfsTar(b), program(b)
	const size = 4 << 30
	src := func(yield func(tree.Entry, error) bool) {
		f, err := os.Open(name)
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		defer f.Close()
		tree.FromTar(f, tree.Limits{})(yield)
	}
	process := way{name: "banger, a process", make: func(out string) error {
		return command(banger, "disk", "create", out, "--size", "4G", "--from-tar", name, "--no-sync")
	}}
	took := race(b, "rootfs tar", []way{
		process,
		{name: "banger", make: ours(size, false, src)},
		{name: "banger, fsync", make: ours(size, true, src)},
		{name: "cat, fsync", make: func(out string) error {
			return errors.Join(command("sh", "-c", "cat '"+name+"' > '"+out+"'"), command("sync", out))
		}},
		{name: "floor: cat", make: func(out string) error { return command("sh", "-c", "cat '"+name+"' > '"+out+"'") }},
	})
	b.ReportMetric(took["banger"]/took["floor: cat"], "tar/cat")
	b.ReportMetric(took["banger, fsync"]/took["cat, fsync"], "tar/cat-fsync")
	// By itself: its thousands of files change what memory the others find.
	took = race(b, "rootfs tar against mke2fs", []way{
		{name: "fakeroot, tar -x, mke2fs -d", runs: 4, make: func(out string) error {
			dir := b.TempDir()
			err := command("fakeroot", "sh", "-c", "tar -C '"+dir+"' -xf '"+name+"' && truncate -s 4G '"+out+"' && mke2fs -q -F -t ext4 -d '"+dir+"' '"+out+"'")
			return errors.Join(err, os.RemoveAll(dir))
		}},
		process,
	})
	b.ReportMetric(took["fakeroot, tar -x, mke2fs -d"]/took["banger, a process"], "mke2fs/process")
	image := filepath.Join(b.TempDir(), "image")
	if err := ours(size, false, src)(image); err != nil {
		b.Fatal(err)
	}
	start, total := time.Now(), int64(0)
	if err := readImage(image, &total); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(total)/1e9/time.Since(start).Seconds(), "read-GB/s")
}

func readImage(image string, total *int64) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	fsys, err := read.Open(f, info.Size())
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for e, err := range fsys.Source(".") {
		if err != nil {
			return err
		}
		for e.Content != nil {
			n, err := e.Content.Read(buf)
			*total += int64(n)
			if err == io.EOF {
				break
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

func BenchmarkPatch(b *testing.B) {
	image := filepath.Join(b.TempDir(), "image.ext4")
	if err := ours(8<<30, false, tree.Of())(image); err != nil {
		b.Fatal(err)
	}
	content := strings.Repeat("x", 4000)
	var times []time.Duration
	for range runs(b) + 1 { // the first warms up
		begun := time.Now()
		err := patch.Apply(image, patch.Options{Now: time.Unix(1_700_000_000, 0), NoSync: true}, func(tx *patch.Tx) error {
			return tx.WriteFile("file", int64(len(content)), strings.NewReader(content), patch.Attr{Mode: 0o644})
		})
		if err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begun))
	}
	all := result{times: times[1:]}
	b.ReportMetric(ms(all.median()), "patch-ms")
}
