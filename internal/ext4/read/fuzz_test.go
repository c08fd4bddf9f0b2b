package read_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/ext4/read"
	"banger/internal/tree"
)

var update = flag.Bool("update", false, "make testdata/*.gz anew with mke2fs")

// smallImages are file systems of 4 MiB with a bit of everything, as mke2fs makes them.
func smallImages(tb testing.TB) (images [][]byte) {
	tb.Helper()
	if *update {
		makeImages(tb)
	}
	paths, err := filepath.Glob("testdata/*.gz")
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no testdata/*.gz: %v", err)
	}
	for _, path := range paths {
		packed, err := os.Open(path)
		if err != nil {
			tb.Fatal(err)
		}
		defer packed.Close()
		unpacked, err := gzip.NewReader(packed)
		if err != nil {
			tb.Fatal(err)
		}
		image, err := io.ReadAll(unpacked)
		if err != nil {
			tb.Fatal(err)
		}
		images = append(images, image)
	}
	return images
}

func makeImages(tb testing.TB) {
	tb.Helper()
	seed := tb.TempDir()
	script := `mkdir -p d/e && echo content > d/file && ln d/file hard && ln -s d/file short && mkfifo fifo && seq 6000 > numbers &&
		ln -s $(printf %0100d 1) long && for i in $(seq 40); do : > d/e/a-rather-long-name-to-fill-blocks-with-$i; done &&
		truncate -s 90000 sparse && echo end >> sparse`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = seed
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	for i, args := range [][]string{
		{"-t", "ext4", "-O", "^has_journal,^resize_inode"},
		{"-t", "ext4", "-O", "^has_journal,^resize_inode,^metadata_csum,inline_data"},
		{"-t", "ext2"},
		{"-t", "ext4", "-O", "^resize_inode", "-J", "size=1"},
	} {
		image := filepath.Join(tb.TempDir(), "image")
		args = append(append([]string{"-q", "-F", "-b", "1024", "-N", "96", "-d", seed}, args...), image, "4M")
		if out, err := exec.Command("mke2fs", args...).CombinedOutput(); err != nil {
			tb.Fatalf("mke2fs: %v\n%s", err, out)
		}
		if out, err := exec.Command("e2fsck", "-fyD", image).CombinedOutput(); err != nil && err.Error() != "exit status 1" {
			tb.Fatalf("e2fsck: %v\n%s", err, out)
		}
		if strings.Contains(strings.Join(args, " "), "-J") {
			dirty(tb, image)
		}
		data, err := os.ReadFile(image)
		if err != nil {
			tb.Fatal(err)
		}
		var packed bytes.Buffer
		w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if _, err := w.Write(data); err != nil || w.Close() != nil {
			tb.Fatal("gzip")
		}
		if err := os.WriteFile(fmt.Sprintf("testdata/image-%d.gz", i), packed.Bytes(), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

// dirty puts into the journal a transaction that changes the blocks of the file "numbers", and another that revokes one.
func dirty(tb testing.TB, image string) {
	tb.Helper()
	out, err := exec.Command("debugfs", "-R", "blocks numbers", image).Output()
	blocks := strings.Fields(string(out))
	if err != nil || len(blocks) < 10 {
		tb.Fatalf("debugfs: %v, %s", err, out)
	}
	content := filepath.Join(tb.TempDir(), "content")
	if err := os.WriteFile(content, bytes.Repeat([]byte("\xc0\x3b\x39\x98"), 4096), 0o600); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("debugfs", "-w", image)
	cmd.Stdin = strings.NewReader("jo\njw -b " + blocks[0] + "," + blocks[3] + " " + content + "\njw -r " + blocks[3] + "\njc\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("debugfs: %v\n%s", err, out)
	}
}

// readAll reads everything there is and gives what was found, or the first error.
func readAll(image []byte) (text []byte, err error) {
	fsys, err := read.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	var data int64
	for e, err := range fsys.Source(".") {
		if err != nil {
			return out.Bytes(), err
		}
		fmt.Fprint(&out, e.Path, e.Link, e.Xattrs)
		if e.Kind != tree.File || e.Size > 16<<20 {
			continue
		}
		if c, ok := e.Content.(*read.Content); ok {
			n, err := readData(&out, c)
			if err != nil {
				return out.Bytes(), err
			}
			data += n
		}
	}
	if data > int64(len(image)) {
		return nil, errors.New("more data than the image has")
	}
	return out.Bytes(), nil
}

func readData(w io.Writer, c *read.Content) (total int64, err error) {
	for off := int64(0); ; {
		start, end, err := c.NextData(off)
		if errors.Is(err, io.EOF) {
			return total, nil
		} else if err != nil {
			return total, err
		}
		if start < off || end <= start || end > c.Size() {
			return total, errors.New("NextData goes astray")
		}
		n, err := io.Copy(w, io.NewSectionReader(c, start, end-start))
		if err != nil {
			return total, err
		}
		total += n
		off = end
	}
}

// Whatever an image holds, reading ends, gives the same twice, no more data than the image has, and errors of a kind.
func FuzzRead(f *testing.F) {
	images := smallImages(f)
	for i := range images {
		f.Add(uint8(i), uint32(0), []byte(nil), uint32(0), []byte(nil), uint32(0))
		f.Add(uint8(i), uint32(1024), []byte{0xFF}, uint32(5000), []byte{0}, uint32(100))
	}
	f.Fuzz(func(t *testing.T, which uint8, at1 uint32, b1 []byte, at2 uint32, b2 []byte, cut uint32) {
		image := bytes.Clone(images[int(which)%len(images)])
		copy(image[int(at1)%len(image):], b1)
		copy(image[int(at2)%len(image):], b2)
		image = image[:len(image)-int(cut)%len(image)]
		first, err1 := readAll(image)
		second, err2 := readAll(image)
		if !bytes.Equal(first, second) || (err1 == nil) != (err2 == nil) {
			t.Fatalf("two reads differ: %v, %v", err1, err2)
		}
		if err1 != nil && !errors.Is(err1, banger.ErrCorrupt) && !errors.Is(err1, banger.ErrUnsupported) && !errors.Is(err1, banger.ErrNotFound) && !errors.Is(err1, banger.ErrInvalid) {
			t.Fatalf("an error without a kind: %v", err1)
		}
	})
}

// Every single damaged byte of metadata that carries a checksum is noticed or does not matter: what is read without an
// error is what was there.
func TestBitFlips(t *testing.T) {
	for i, image := range smallImages(t) {
		want, err := readAll(image)
		if err != nil {
			t.Fatal(err)
		}
		fsys, err := read.Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			t.Fatal(err)
		}
		root, err := fsys.Root()
		if err != nil {
			t.Fatal(err)
		}
		extents, _, err := root.Layout()
		if err != nil {
			t.Fatal(err)
		}
		table, _, err := fsys.InodeLocation(1)
		if err != nil {
			t.Fatal(err)
		}
		if fsys.NeedsRecovery() && fmt.Sprint(len(fsys.Logged())) != "1" {
			t.Errorf("%d blocks in the journal, want 1", len(fsys.Logged()))
		}
		noticed, total := 0, 0
		for _, block := range []uint64{1, 2, table, table + 2, table + 3, extents[0].Physical} {
			for off := block * 1024; off < block*1024+1024; off += 3 {
				damaged := bytes.Clone(image)
				damaged[off] ^= 1 << (off % 8)
				got, err := readAll(damaged)
				if err != nil {
					noticed++
				} else if fsys.Super().MetadataCsum() && !bytes.Equal(got, want) {
					t.Fatalf("image %d: byte %d is damaged, unnoticed", i, off)
				}
				total++
			}
		}
		t.Logf("image %d: %d of %d flips noticed", i, noticed, total)
	}
}
