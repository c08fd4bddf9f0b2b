package image

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/api"
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

// Build makes an image from packages, as stage "image", also when one of that name is there. Callers who ask for the same share one build; it
// ends early when all of them have left. On error nothing is left.
// Errors: ErrInvalid, ErrNotFound and ErrConflict by the request; ErrUnavailable without mirror, keys, tool or disk space.
func (m *Manager) Build(ctx context.Context, req api.BuildRequest, progress banger.ProgressFunc) (banger.Image, error) {
	def, err := define(req)
	if err != nil {
		return banger.Image{}, &banger.Error{Op: "build image " + req.Name, Err: err}
	}
	return m.shareBuild(ctx, def, req.Kernel, progress)
}

// shareBuild builds for everyone who wants just this now.
func (m *Manager) shareBuild(ctx context.Context, def definition, kernel string, progress banger.ProgressFunc) (banger.Image, error) {
	key, err := json.Marshal([]any{def.Name, kernel, def})
	if err != nil {
		return banger.Image{}, err
	}
	op := "build image " + def.Name
	return m.jobs.Do(ctx, op, "build "+string(key), progress, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		end := progress.Begin("image", "building image "+def.Name)
		image, err := m.build(ctx, def, kernel, progress)
		if err != nil {
			return image, &banger.Error{Op: op, Err: err}
		}
		end()
		return image, nil
	})
}

// build makes and publishes an image. On error nothing is left.
func (m *Manager) build(ctx context.Context, def definition, kernel string, progress banger.ProgressFunc) (image banger.Image, err error) {
	for _, program := range []string{tool, mapTool} {
		if _, err := proc.LookPath(program); err != nil {
			return image, err
		}
	}
	if err := def.checkKeys(); err != nil {
		return image, err
	}
	for _, dir := range []string{m.Dir.Images(), m.scratch} {
		if err := hostcheck.Room(dir, neededSpace); err != nil {
			return image, err
		}
	}
	staging := m.newStaging(def.Name)
	defer func() {
		if err != nil {
			err = errors.Join(m.spaceError(err), m.removeStaging(context.WithoutCancel(ctx), staging))
		}
	}()
	scratch, err := m.makeStaging(staging)
	if err != nil {
		return image, err
	}
	sum := sha256.New()
	added, missing, err := m.additions(ctx, def, staging, sum, progress)
	if err != nil {
		return image, err
	}
	init := &initFinder{}
	finish := func(packages tree.Source) tree.Source { return init.watch(tree.Concat(packages, added)) }
	if err := m.bootstrap(ctx, def, staging, scratch, finish, sum, progress); err != nil {
		return image, err
	}
	info, err := os.Stat(staging.Rootfs())
	if err != nil {
		return image, err
	}
	image = banger.Image{Name: def.Name, Boot: cmp.Or(def.Boot, init.kind()), Kernel: kernel, SizeBytes: info.Size(), Description: def.Description,
		Source: "packages " + def.From, Missing: missing, CreatedAt: m.Now().UTC()}
	image.Key = keyOf(image, hex.EncodeToString(sum.Sum(nil)))
	if err := errors.Join(m.removeScratch(ctx, staging), removeFetched(staging)); err != nil {
		return image, err
	}
	if image, err = m.publishNewest(staging, image); err != nil {
		return image, err
	}
	return image, os.RemoveAll(staging.Path)
}

// checkKeys looks for the keys of an archive that mmdebstrap is told to check with.
func (d definition) checkKeys() error {
	dist, _ := d.distribution()
	if dist.mirror == "" || exists(dist.keyring) {
		return nil
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "check " + d.From, Err: fmt.Errorf("%s is missing: it has the keys of the archive", dist.keyring),
		Hint: "install the package " + dist.keyPackage}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// environ is mmdebstrap's environment. A proxy stands there and not on the command line: it may have a password.
func (m *Manager) environ(def definition, scratch string) []string {
	env := append(os.Environ(), "TMPDIR="+scratch, "SOURCE_DATE_EPOCH="+strconv.FormatInt(def.Time.Unix(), 10), "LC_ALL=C.UTF-8")
	if m.Proxy != "" {
		env = append(env, "http_proxy="+m.Proxy, "https_proxy="+m.Proxy)
	}
	return env
}

// bootstrap runs mmdebstrap and writes rootfs and seed from its tar as it comes.
func (m *Manager) bootstrap(ctx context.Context, def definition, staging statedir.ImageDir, scratch string, finish func(tree.Source) tree.Source, sum hash.Hash, progress banger.ProgressFunc) error {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	words := &lastLines{report: func(line string) {
		progress.Report(banger.Progress{Stage: "image", Text: "building image " + def.Name, Detail: line})
	}}
	var toolErr error
	var group sync.WaitGroup
	group.Go(func() {
		toolErr = proc.Run(work, proc.Command{Path: tool, Args: def.args(m.Mirror, m.Keyring), Stdout: writer, Stderr: words, Env: m.environ(def, scratch)})
		writer.CloseWithError(toolErr)
	})
	count := &counter{r: io.TeeReader(reader, sum), report: func(n int64) {
		progress.Report(banger.Progress{Stage: "image", Text: "building image " + def.Name, Detail: "writing the root file system", Bytes: n})
	}}
	_, writeErr := writeTree(work, def.Name, def.Time, finish(clean(tree.FromTar(count, m.Limits))), "", staging)
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
		failure := fmt.Errorf("%w\n%s", toolErr, words)
		if forbidden := ordinaryUser(); forbidden != nil { // not asked before: users may have ids from elsewhere than these files
			return &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("%w\n%w", forbidden, failure), Hint: banger.HintOf(forbidden)}
		}
		return &banger.Error{Kind: banger.ErrUnavailable, Err: failure, Hint: hint(def)}
	case writeErr != nil:
		return writeErr
	case count.n == 0 || count.n%tarBlock != 0: // a tar without its end reads like a whole one
		return fmt.Errorf("%s gave %d bytes, which is no tar", tool, count.n)
	}
	return nil
}

// ordinaryUser says, in the doctor's words, what this host forbids that the tool needs.
func ordinaryUser() error {
	host, err := hostcheck.NewHost()
	if err != nil {
		return err
	}
	return hostcheck.Report{hostcheck.SubordinateIDs(host), hostcheck.UserNamespaces(host)}.Err()
}

// hint is the next step after a failure of the tool: the most likely.
func hint(def definition) string {
	if dist, _ := def.distribution(); !exists(dist.keyring) {
		return "the keys of the archive are missing: install the package " + dist.keyPackage
	}
	return "a package or the suite may not exist, or the mirror be out of reach: look at the names and the network, or set BANGER_MIRROR to the URL of another"
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
