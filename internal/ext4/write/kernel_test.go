package write_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// differences is what rsync would change below there to make it what is below here: contents, attributes, links, devices,
// and times to the nanosecond.
func differences(t testing.TB, here, there string) string {
	t.Helper()
	return testenv.Run(t, "rsync", "-nacHAX", "--devices", "--specials", "--modify-window=-1", "--delete", "--exclude=/lost+found", "--itemize-changes", here+"/", there+"/")
}

func TestRsyncFindsNoDifference(t *testing.T) {
	testenv.RequireTool(t, "rsync")
	seed := t.TempDir()
	testenv.SampleTree(t, seed)
	archive, err := os.Create(filepath.Join(t.TempDir(), "archive.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	testenv.Run(t, "tar", "--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "-C", seed, "-cf", archive.Name(), ".")
	var before, mount string
	for name, src := range map[string]tree.Source{"directory": tree.FromDir(seed), "tar": tree.FromTar(archive, tree.Limits{})} {
		image, _ := create(t, options(1<<30), src)
		mount, _ = testenv.Mount(t, image, "ro", "noatime")
		if before = differences(t, seed, mount); before != "" {
			t.Errorf("from a %s: rsync would change\n%s", name, before)
		}
	}
	at := func(name string) string { return filepath.Join(seed, name) }
	old := time.Unix(1_000_000_000, 0)
	for _, tc := range []struct {
		name   string
		change func() error
	}{
		{"size-160", func() error { // other bytes, with the size and the time as they were
			return errors.Join(os.WriteFile(at("size-160"), make([]byte, 160), 0), os.Chtimes(at("size-160"), old, old))
		}},
		{"size-60", func() error { return os.Chmod(at("size-60"), 0o600) }},
		{"size-59", func() error { return os.Chtimes(at("size-59"), old, old.Add(1)) }},
		{"size-61", func() error { return unix.Lsetxattr(at("size-61"), "user.other", []byte("v"), 0) }},
		{"size-1", func() error { return os.Lchown(at("size-1"), 1, 1) }},
		{"fifo", func() error { return os.Remove(at("fifo")) }},
		{"link-60", func() error {
			return replace(at("link-60"), func() error { return os.Symlink("other", at("link-60")) })
		}},
		{"hard", func() error { return replace(at("hard"), func() error { return os.Link(at("size-0"), at("hard")) }) }},
		{"char", func() error {
			return replace(at("char"), func() error { return unix.Mknod(at("char"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) })
		}},
	} {
		if err := tc.change(); err != nil {
			t.Fatal(err)
		}
		after := differences(t, seed, mount)
		if after == before || !strings.Contains(after, tc.name) {
			t.Errorf("%s is changed, and rsync finds only\n%s", tc.name, after)
		}
		before = after
	}
}

func replace(path string, make func() error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return make()
}

// changes fills and empties directories of every kind, writes into holes, ends and the middle of files, and links.
const changes = `set -e
cd "$1"
for i in $(seq 2000); do echo $i; done | (cd large && xargs touch)
(cd large && seq -f 'a-name-of-some-length-%g' 0 2 2999 | xargs rm && for i in $(seq 1 2 99); do mv a-name-of-some-length-$i moved-$i; done)
for f in sizes/*; do echo more >>$f; done
for f in holes/*; do printf x | dd of="$f" bs=1 seek=700000 conv=notrunc status=none; done
truncate -s 100 "holes/2000 pieces" && truncate -s 5000 sizes/1048576
ln sizes/1 links/linked && ln -s $(printf %0200d 7) links/new && rm links/1000 links/1
mkdir -p special/new/deep && mknod special/new/null c 1 3 && rm -r special/highest attributes/many
chmod 700 attributes/* && touch names/* && rm -r d
dd if=/dev/urandom of=noise bs=1M count=60 status=none && cp noise copy && rm noise && sync
`

// The kernel changes what was written, and leaves a file system without faults.
func TestKernelGoesOn(t *testing.T) {
	for _, change := range []func(*write.Options){func(*write.Options) {}, func(o *write.Options) { o.Fit, o.SizeBytes = true, 8<<30 },
		func(o *write.Options) { o.ReservedGDT, o.SizeBytes = 128, 8<<30 }, func(o *write.Options) { o.JournalBlocks = -1 }} {
		opts := options(300 << 20)
		change(&opts)
		t.Run(fmt.Sprintf("%d fit=%v gdt=%d journal=%d", opts.SizeBytes, opts.Fit, opts.ReservedGDT, opts.JournalBlocks), func(t *testing.T) {
			src := tree.Concat(tree.Of(everything()...), numbered(3000, func(i int) tree.Entry { return file(fmt.Sprint("large/a-name-of-some-length-", i), "x") }))
			if opts.Fit { // room for the changes
				src = tree.Concat(src, tree.Of(file("room", pattern(150<<20)), layer(), remove("room")))
			}
			image, _ := create(t, opts, src)
			mount, unmount := testenv.Mount(t, image, "rw")
			testenv.Run(t, "sh", "-c", changes, "changes", mount)
			unmount()
			judge(t, image)
			if n := header(t, image)["FS Error count"]; n != "" {
				t.Errorf("the kernel found %s errors", n)
			}
			fsys := openFS(t, image)
			for path, there := range map[string]bool{"large/moved-99": true, "large/a-name-of-some-length-1": false, "large/a-name-of-some-length-2999": true, "large/2000": true, "copy": true, "d": false} {
				if _, err := fsys.Lookup(path, false); (err == nil) != there {
					t.Errorf("%s: %v", path, err)
				}
			}
			if b, err := fsys.ReadFile("sizes/4097"); string(b) != pattern(4097)+"more\n" || err != nil {
				t.Errorf("sizes/4097 has %d bytes, %v", len(b), err)
			}
		})
	}
}

// e2fsck passes an image whose journal waits for recovery, and has not looked at it: our helper does not.
func TestUnreplayedJournalIsNoPass(t *testing.T) {
	image, _ := create(t, options(16<<20), few())
	testenv.Run(t, "debugfs", "-w", "-R", "feature needs_recovery", image)
	if out, err := exec.Command("e2fsck", "-fn", image).CombinedOutput(); err != nil || !strings.Contains(string(out), "skipping journal recovery") {
		t.Fatalf("%v\n%s", err, out)
	}
	found := &failures{TB: t}
	if testenv.CheckExt4(found, image); found.n == 0 {
		t.Error("the helper finds nothing")
	}
}

// A directory entry that is damaged shows to who reads the tree, too.
func TestReadersFindDamagedEntries(t *testing.T) {
	image, _ := create(t, options(16<<20), few())
	want, err := linesOf(openFS(t, image).Source("."))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("B"), firstEntry(t, image, "a")+8); err != nil { // its name
		t.Fatal(err)
	}
	if lines, err := linesOf(openFS(t, image).Source(".")); err == nil {
		t.Errorf("our reader reads %q", lines)
	}
	mount, _ := testenv.Mount(t, image, "ro")
	if lines, err := linesOf(tree.FromDir(mount)); err == nil && slices.Equal(lines, want) {
		t.Error("the kernel reads what was there")
	}
}

// linesOf gives a tree's paths up to the first error.
func linesOf(src tree.Source) (list []string, err error) {
	for e, err := range src {
		if err != nil {
			return list, err
		}
		list = append(list, e.Path)
	}
	return list, nil
}

// firstEntry is where the entry behind "." and ".." of a directory lies in its image.
func firstEntry(t *testing.T, image, dir string) int64 {
	t.Helper()
	n, err := openFS(t, image).Lookup(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	extents, _, err := n.Layout()
	if err != nil || len(extents) == 0 {
		t.Fatalf("%v, %v", extents, err)
	}
	return int64(extents[0].Physical)*4096 + 24
}
