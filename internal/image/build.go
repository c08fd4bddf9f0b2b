package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/hostcheck"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/tree"
)

const (
	tool    = "mmdebstrap"
	mapTool = "newuidmap" // runs in tool
	// format stands for what this package and the ext4 writer make of the same packages: another number, other keys.
	format = 1
	// maxRootfs bounds a base while it is written; it is cut to fit at the end.
	maxRootfs = 64 << 30
	// neededSpace is about what mmdebstrap's directory takes in one place, and the base in another, while a small image is made.
	neededSpace = 400 << 20
	// tarBlock is what a tar consists of (tar(5)).
	tarBlock = 512
	// reportEvery is how many bytes pass between two reports.
	reportEvery = 4 << 20
)

// defaultLimits bound what an image may hold.
var defaultLimits = tree.Limits{Entries: 4_000_000, Bytes: maxRootfs}

// build makes and publishes an image. On error nothing is left.
func (m *Manager) build(ctx context.Context, def definition, progress banger.ProgressFunc) (image banger.Image, err error) {
	for _, program := range []string{tool, mapTool} {
		if _, err := proc.LookPath(program); err != nil {
			return image, err
		}
	}
	for _, dir := range []string{m.Dir.Images(), m.scratch} {
		if err := checkSpace(dir); err != nil {
			return image, err
		}
	}
	staging := m.newStaging(def.Name)
	defer func() {
		if err != nil {
			err = errors.Join(banger.SpaceError(err, m.Dir.Images()), m.removeStaging(context.WithoutCancel(ctx), staging))
		}
	}()
	scratch, err := m.makeStaging(staging)
	if err != nil {
		return image, err
	}
	sum := sha256.New()
	if err := m.bootstrap(ctx, def, staging, scratch, sum, progress); err != nil {
		return image, err
	}
	info, err := os.Stat(staging.Rootfs())
	if err != nil {
		return image, err
	}
	image = banger.Image{Name: def.Name, Boot: def.Boot, SizeBytes: info.Size(), Description: def.Description,
		Source: "packages debian:" + def.Suite, CreatedAt: m.Now().UTC()}
	image.Key = keyOf(image, hex.EncodeToString(sum.Sum(nil)))
	if err := m.removeScratch(ctx, staging); err != nil {
		return image, err
	}
	if image, err = m.publishNewest(staging, image); err != nil {
		return image, err
	}
	return image, os.RemoveAll(staging.Path)
}

func checkSpace(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the free space: %w", err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < neededSpace {
		return &banger.Error{Kind: banger.ErrUnavailable, Hint: "make space on the file system of " + dir,
			Err: fmt.Errorf("not enough disk space: %s free, %s needed", banger.FormatSize(free), banger.FormatSize(neededSpace))}
	}
	return nil
}

// bootstrap runs mmdebstrap and writes rootfs and seed from its tar as it comes.
func (m *Manager) bootstrap(ctx context.Context, def definition, staging statedir.ImageDir, scratch string, sum hash.Hash, progress banger.ProgressFunc) error {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	words := &lastLines{report: func(line string) {
		progress.Report(banger.Progress{Stage: "image", Text: "building image " + def.Name, Detail: line})
	}}
	var toolErr error
	var group sync.WaitGroup
	group.Go(func() {
		toolErr = proc.Run(work, proc.Command{Path: tool, Args: def.args(), Stdout: writer, Stderr: words,
			Env: append(os.Environ(), "TMPDIR="+scratch, "SOURCE_DATE_EPOCH="+strconv.FormatInt(def.Time.Unix(), 10), "LC_ALL=C.UTF-8")})
		writer.CloseWithError(toolErr)
	})
	count := &counter{r: io.TeeReader(reader, sum), report: func(n int64) {
		progress.Report(banger.Progress{Stage: "image", Text: "building image " + def.Name, Detail: "writing the root file system", Bytes: n})
	}}
	_, writeErr := writeTree(work, def.Name, def.Time, clean(tree.FromTar(count, m.Limits)), "", staging)
	if writeErr == nil {
		_, writeErr = io.Copy(io.Discard, count) // the tar's padding is part of the key, and mmdebstrap must not meet a closed pipe
	}
	if writeErr != nil {
		cancel()
	}
	reader.CloseWithError(io.ErrClosedPipe)
	group.Wait()
	switch failed := toolErr != nil && (writeErr == nil || errors.Is(writeErr, toolErr)); { // else it was ended for writeErr
	case ctx.Err() != nil:
		return ctx.Err()
	case failed && words.empty():
		return toolErr
	case failed:
		return &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("%w\n%s", toolErr, words), Hint: hint()}
	case writeErr != nil:
		return writeErr
	case count.n == 0 || count.n%tarBlock != 0: // a tar without its end reads like a whole one
		return fmt.Errorf("%s gave %d bytes, which is no tar", tool, count.n)
	}
	return nil
}

// hint is the next step after a failure of the tool: what this host forbids, else the most likely.
func hint() string {
	if host, err := hostcheck.NewHost(); err == nil {
		for _, check := range []hostcheck.Check{hostcheck.SubordinateIDs(host), hostcheck.UserNamespaces(host)} {
			if check.Status == hostcheck.Fail {
				return check.Hint
			}
		}
	}
	return "the package mirror may be out of reach: look at the network, or set BANGER_MIRROR to the URL of another"
}

// writeTree makes rootfs and seed, durably. Equal trees of one name give equal bytes. A workSeed is the path of another seed, whose
// digest it gives.
func writeTree(ctx context.Context, name string, at time.Time, src tree.Source, workSeed string, staging statedir.ImageDir) (seed string, err error) {
	id := sha256.Sum256([]byte("banger image " + name))
	opts := write.Options{SizeBytes: maxRootfs, UUID: [16]byte(id[:16]), HashSeed: [16]byte(id[16:]), Label: "banger-base", Time: at,
		Fit: true, JournalBlocks: -1, Sync: true}
	if _, err := write.CreateFile(ctx, staging.Rootfs(), opts, src); err != nil {
		return "", fmt.Errorf("write the root file system: %w", err)
	}
	if err := os.Chmod(staging.Rootfs(), 0o444); err != nil {
		return "", err
	}
	return writeSeed(ctx, staging.Rootfs(), workSeed, staging.Seed())
}

// clean leaves out what tells of the host that the image was made on and what the guest makes itself.
func clean(src tree.Source) tree.Source {
	return tree.Filter(src, func(entry *tree.Entry) bool {
		if entry.Path == "etc/machine-id" { // empty: the guest gets its own at its first boot
			entry.Size, entry.Content = 0, nil
		}
		return !isNeedless(*entry)
	})
}

func isNeedless(entry tree.Entry) bool {
	switch entry.Path {
	case "etc/hostname", "etc/resolv.conf":
		return true
	}
	for _, dir := range []string{"dev/", "proc/", "sys/", "run/", "tmp/"} {
		if strings.HasPrefix(entry.Path, dir) {
			return true
		}
	}
	return entry.Kind == tree.File && entry.Size > 0 && (strings.HasPrefix(entry.Path, "var/log/") || strings.HasPrefix(entry.Path, "var/cache/apt/") ||
		strings.HasPrefix(entry.Path, "var/lib/apt/lists/"))
}

// counter reports how much has been read.
type counter struct {
	r      io.Reader
	n      int64
	told   int64
	report func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); c.n-c.told >= reportEvery {
		c.told = c.n
		c.report(c.n)
	}
	return n, err
}

// lastLines keeps the last lines of a program's output and reports each.
type lastLines struct {
	report func(string)
	part   []byte
	lines  []string
}

const (
	keptLines     = 12
	maxLineLength = 300
)

func (l *lastLines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		i := bytes.IndexAny(l.part, "\r\n")
		if i < 0 {
			l.part = l.part[max(0, len(l.part)-maxLineLength):]
			return len(p), nil
		}
		line := strings.TrimSpace(string(l.part[:min(i, maxLineLength)]))
		l.part = l.part[i+1:]
		if line == "" {
			continue
		}
		l.lines = append(l.lines[max(0, len(l.lines)-keptLines+1):], strings.ToValidUTF8(line, "?"))
		l.report(l.lines[len(l.lines)-1])
	}
}

func (l *lastLines) empty() bool { return len(l.lines) == 0 && len(l.part) == 0 }

func (l *lastLines) String() string { return strings.Join(append(l.lines, string(l.part)), "\n") }
