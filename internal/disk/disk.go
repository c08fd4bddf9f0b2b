// Package disk makes the disk that belongs to one VM, everything that the VM ever writes, and reads the file tree of a stopped one.
//
// A disk is a plain file with one ext4 file system, born at its final size in one pass: layout mark, the overlay's directories, the
// bind directories of package banger, and /root from the image's seed and the files of this VM, all root:root with their modes.
package disk

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/ext4/write"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// Options say what a disk is made from.
type Options struct {
	SizeBytes int64
	Seed      string            // tar of the image's /root; "": none
	Files     []tree.Entry      // relative to /root, parents included; they replace what the seed has
	Sync      []tree.Entry      // synced files, like Files; a directory that is there keeps its own mode
	Marks     map[string]string // of synced files: what the guest's agent remembers of them
	GitName   string            // the user's identity for git; may be empty
	GitEmail  string
	Time      time.Time // of everything that is new
}

// maxSeed bounds a seed: /root of an image.
var maxSeed = tree.Limits{Entries: 100_000, Bytes: 4 << 30}

// manifest is disk.json: the disk as a chain of files, the newest last.
type manifest struct {
	Version int    `json:"version"`
	Chain   []part `json:"chain"`
}

type part struct {
	File      string `json:"file"` // in the VM's directory
	Format    string `json:"format"`
	SizeBytes int64  `json:"size_bytes"`
}

const (
	manifestVersion = 1
	formatRaw       = "raw"
	label           = "banger-disk"
)

// Create makes disk and manifest in an existing directory. They are durable when it returns. On error neither is left.
// Errors: ErrUnavailable when there is no space left; ErrCorrupt when the seed is damaged.
func Create(ctx context.Context, home statedir.VMDir, opts Options) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(banger.SpaceError(err, home.Path), remove(home.Disk()), remove(home.DiskManifest()))
		}
	}()
	seed, closeSeed, err := openSeed(opts.Seed)
	if err != nil {
		return err
	}
	defer closeSeed()
	var id [32]byte
	_, _ = rand.Read(id[:])
	fs := write.Options{SizeBytes: opts.SizeBytes, UUID: [16]byte(id[:16]), HashSeed: [16]byte(id[16:]), Label: label, Time: opts.Time, Sync: true}
	text, err := json.Marshal(manifest{manifestVersion, []part{{path.Base(home.Disk()), formatRaw, opts.SizeBytes}}})
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	go func() { written <- atomicfile.Write(home.DiskManifest(), append(text, '\n'), 0o600) }() // beside: both wait for the host's disk
	if _, err = write.CreateFile(ctx, home.Disk(), fs, source(seed, opts)); err != nil {
		err = fmt.Errorf("write the disk: %w", err)
	}
	return errors.Join(err, <-written)
}

func remove(name string) error {
	if err := os.Remove(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func openSeed(name string) (tree.Source, func(), error) {
	if name == "" {
		return tree.Concat(), func() {}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, &banger.Error{Kind: banger.ErrCorrupt, Op: "image seed", Subject: name, Err: err, Hint: "build the image again"}
	}
	return tree.FromTar(file, maxSeed), func() { file.Close() }, nil
}

// source is everything on a new disk, in order.
func source(seed tree.Source, opts Options) tree.Source {
	made := map[string]bool{}
	var base []tree.Entry
	add := func(dir string, mode uint32) {
		for i := range dir {
			if dir[i] == '/' && !made[dir[:i]] {
				made[dir[:i]] = true
				base = append(base, tree.Directory(dir[:i], 0o755))
			}
		}
		made[dir] = true
		base = append(base, tree.Directory(dir, mode))
	}
	base = append(base, tree.Literal(banger.DiskLayoutFile, 0o444, fmt.Appendf(nil, "%d\n", banger.DiskLayoutVersion)))
	if len(opts.Marks) > 0 {
		text, _ := json.Marshal(opts.Marks) // texts can always be encoded
		base = append(base, tree.Literal(banger.DiskSyncFile, 0o600, text))
	}
	add(banger.DiskUpperDir, 0o755)
	add(banger.DiskWorkDir, 0o755)
	home := ""
	for _, bind := range banger.DiskBinds {
		add(bind.Dir, bind.Mode)
		if bind.Target == "/root" {
			home = bind.Dir
		}
	}
	root := &rootDir{opts: opts, seed: seed, seen: map[string]bool{}, dirs: map[string]bool{}}
	return tree.Concat(tree.Of(base...), tree.Under(home, tree.WithOwner(tree.Concat(root.fromSeed, root.own), 0, 0)))
}

// rootDir is what /root gets: first the seed, then what is this VM's own.
type rootDir struct {
	opts Options
	seed tree.Source
	seen map[string]bool // of the seed, then also of the VM's own files
	dirs map[string]bool // of those, the directories
}

// fromSeed leaves out the directory itself, whose mode the layout gives, and what the VM's own files replace.
func (r *rootDir) fromSeed(yield func(tree.Entry, error) bool) {
	replaced := map[string]bool{".": true}
	for _, entry := range slices.Concat(r.opts.Files, r.opts.Sync) {
		if entry.Kind != tree.Dir {
			replaced[entry.Path] = true
		}
	}
	for entry, err := range r.seed {
		if err != nil {
			yield(entry, &banger.Error{Kind: banger.ErrCorrupt, Op: "read the image's seed", Err: err, Hint: "build the image again"})
			return
		}
		r.seen[entry.Path] = true
		r.dirs[entry.Path] = entry.Kind == tree.Dir
		if !replaced[entry.Path] && !yield(entry, nil) {
			return
		}
	}
}

// own comes after fromSeed. Git reads two files; the identity goes into the first that the seed lacks, so that neither the image's
// settings nor the user's name get lost.
func (r *rootDir) own(yield func(tree.Entry, error) bool) {
	for _, entry := range r.opts.Files {
		r.dirs[entry.Path] = entry.Kind == tree.Dir
		if !yield(entry, nil) {
			return
		}
	}
	for _, entry := range r.opts.Sync {
		known := r.dirs[entry.Path] && entry.Kind == tree.Dir
		r.seen[entry.Path] = true
		if !known && !yield(entry, nil) {
			return
		}
	}
	text := []byte(gitConfig(r.opts.GitName, r.opts.GitEmail))
	switch {
	case len(text) == 0 || r.seen[".gitconfig"] && r.seen[".config/git/config"]:
	case !r.seen[".gitconfig"]:
		yield(tree.Literal(".gitconfig", 0o644, text), nil)
	default:
		for _, dir := range []string{".config", ".config/git"} {
			if !r.seen[dir] && !yield(tree.Directory(dir, 0o755), nil) {
				return
			}
		}
		yield(tree.Literal(".config/git/config", 0o644, text), nil)
	}
}

// Check looks whether the disk of a VM is there as its manifest says; one that a cut-off growth left larger is. Errors: ErrCorrupt,
// ErrUnsupported.
func Check(home statedir.VMDir) error {
	m, err := readManifest(home)
	if err != nil {
		return err
	}
	info, err := os.Lstat(home.Disk())
	if err == nil && (!info.Mode().IsRegular() || info.Size() < m.Chain[0].SizeBytes) {
		err = wrongSize(m.Chain[0], info)
	}
	if err != nil {
		return damaged(home, err)
	}
	return nil
}

func readManifest(home statedir.VMDir) (m manifest, err error) {
	text, err := os.ReadFile(home.DiskManifest())
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, damaged(home, err)
	}
	if m.Version != manifestVersion || len(m.Chain) != 1 || m.Chain[0].Format != formatRaw {
		return m, &banger.Error{Kind: banger.ErrUnsupported, Op: "disk", Subject: home.Path, Err: errors.New("a newer banger made it")}
	}
	return m, nil
}

func damaged(home statedir.VMDir, err error) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Op: "disk", Subject: home.Path, Err: err, Hint: "the VM can only be deleted: banger vm delete"}
}

func wrongSize(p part, info os.FileInfo) error {
	return fmt.Errorf("%s has %d bytes, want a file of %d", p.File, info.Size(), p.SizeBytes)
}

// gitConfig is a git configuration with the identity, "" without one.
func gitConfig(name, email string) string {
	if name == "" && email == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString("[user]\n")
	for _, field := range []struct{ key, value string }{{"name", name}, {"email", email}} {
		if field.value != "" {
			fmt.Fprintf(&b, "\t%s = \"%s\"\n", field.key, gitQuote.Replace(field.value))
		}
	}
	return b.String()
}

// gitQuote escapes a value between double quotes (git-config, "Syntax"). Git has no escape for other control characters, and a
// carriage return or a NUL in a name is an accident.
var gitQuote = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`, "\b", `\b`, "\r", "", "\x00", "")
