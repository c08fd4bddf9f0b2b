package patch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/ext4"
	"banger/internal/ext4/read"
	"banger/internal/testenv"
)

var errKilled = errors.New("killed")

// disk is an image in memory whose writer is killed before a write. What was not synced by then may be lost.
type disk struct {
	data    []byte
	pending []write // since the last Sync
	writes  int
	kill    int // before this write; 0: never
	torn    bool
}

type write struct {
	off int64
	old []byte
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(d.data).ReadAt(p, off)
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.writes++
	killed := d.kill > 0 && d.writes >= d.kill
	if killed && (!d.torn || d.writes > d.kill || off == ext4.SuperOffset) { // of a superblock one sector changes, but for its checksum
		return 0, errKilled
	}
	d.pending = append(d.pending, write{off, bytes.Clone(d.data[off : off+int64(len(p))])})
	if killed { // of a write, whole sectors arrive
		copy(d.data[off:], p[:len(p)/1024*512])
		return 0, errKilled
	}
	return copy(d.data[off:], p), nil
}

func (d *disk) Sync() error {
	if d.kill > 0 && d.writes >= d.kill {
		return errKilled
	}
	d.pending = nil
	return nil
}

// lose takes back some of the writes that were not synced.
func (d *disk) lose(r *rand.Rand) {
	lost := map[int64][]byte{}
	for _, w := range d.pending {
		if _, ok := lost[w.off]; !ok && r.IntN(2) == 0 {
			lost[w.off] = w.old
		}
	}
	for off, old := range lost {
		copy(d.data[off:], old)
	}
}

// edits are changes of every kind, to the image and to the model.
func edits(tx *Tx, m model) error {
	a := Attr{Mode: 0o600, UID: 3}
	text := strings.Repeat("new content ", 3000)
	both := func(first, second error) error { return errors.Join(first, second) }
	return errors.Join(
		both(tx.WriteFile("file", int64(len(text)), strings.NewReader(text), a), m.write("file", text, a)),
		both(tx.Mkdir("made", a), m.make("made", entry{kind: 2, mode: a.Mode, uid: 3})),
		both(tx.WriteFile("made/f", 5, strings.NewReader("12345"), a), m.write("made/f", "12345", a)),
		both(tx.RemoveAll("gone"), m.remove("gone", true)),
		both(tx.Rename("old", "made/new"), m.rename("old", "made/new")),
		both(tx.Rename("dir", "made/dir"), m.rename("dir", "made/dir")),
	)
}

const crashScript = `mkdir gone dir && for i in $(seq 60); do echo $i > gone/$i; done && head -c 100000 /dev/urandom > file && echo x > old && echo y > dir/z`

// Killed before every write, and with unsynced writes lost, e2fsck finds the old content or the new, and nothing to repair.
func TestKilledAtEveryWrite(t *testing.T) {
	for _, f := range formats {
		if f.name != "default" && f.name != "1k" && f.name != "no checksums" && f.name != "ext3" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			image, err := os.ReadFile(seeded(t, 12<<20, crashScript, f.args...))
			if err != nil {
				t.Fatal(err)
			}
			size := int64(len(image))
			before := load(t, bytes.NewReader(image), size)
			after := before.clone()
			whole := &disk{data: bytes.Clone(image)}
			if err := apply(whole, size, Options{Now: now}, func(tx *Tx) error { return edits(tx, after) }); err != nil {
				t.Fatal(err)
			}
			judge(t, whole, size, after)
			r := rand.New(rand.NewPCG(2, 3))
			olds, news := 0, 0
			for kill := 1; kill <= whole.writes; kill++ {
				d := &disk{data: bytes.Clone(image), kill: kill, torn: kill%3 == 0}
				if err := apply(d, size, Options{Now: now}, func(tx *Tx) error { return edits(tx, before.clone()) }); !errors.Is(err, errKilled) {
					t.Fatalf("write %d: %v", kill, err)
				}
				if kill%2 == 0 {
					d.lose(r)
				}
				if survives(t, kill, d.data, before, after) {
					news++
				} else {
					olds++
				}
			}
			if olds == 0 || news == 0 {
				t.Errorf("%d times old, %d times new", olds, news)
			}
		})
	}
}

// survives lets our reader and e2fsck recover an image. It tells whether the content is new.
func survives(t *testing.T, kill int, data []byte, before, after model) (isNew bool) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "torn.ext4")
	if err := os.WriteFile(image, data, 0o644); err != nil {
		t.Fatal(err)
	}
	fsys, err := read.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatalf("write %d: %v", kill, err)
	}
	overlay := fmt.Sprint(load(t, bytes.NewReader(data), int64(len(data))).lines())
	out, err := exec.Command(testenv.RequireTool(t, "e2fsck"), "-fy", image).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() > 1) || bytes.Contains(out, []byte("Fix?")) {
		t.Fatalf("write %d: e2fsck -fy: %v\n%s", kill, err, out)
	}
	testenv.CheckExt4(t, image)
	got := fmt.Sprint(loadFile(t, image).lines())
	switch got {
	case fmt.Sprint(after.lines()):
		isNew = true
	case fmt.Sprint(before.lines()):
	default:
		t.Fatalf("write %d: neither old nor new:\n%s", kill, got)
	}
	if fsys.NeedsRecovery() && overlay != got {
		t.Fatalf("write %d: the reader's recovery differs from e2fsck's", kill)
	}
	return isNew
}

// A torn image is recovered by the kernel, and by the patcher before it goes on.
func TestTornImageGoesOn(t *testing.T) {
	file := seeded(t, 12<<20, crashScript, "-t", "ext4", "-b", "4096")
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(image))
	before := load(t, bytes.NewReader(image), size)
	after := before.clone()
	whole := &disk{data: bytes.Clone(image)}
	if err := apply(whole, size, Options{Now: now}, func(tx *Tx) error { return edits(tx, after) }); err != nil {
		t.Fatal(err)
	}
	for kill := 1; kill <= whole.writes; kill++ {
		d := &disk{data: bytes.Clone(image), kill: kill}
		_ = apply(d, size, Options{Now: now}, func(tx *Tx) error { return edits(tx, before.clone()) })
		torn := bytes.Clone(d.data)
		d.kill, d.writes = 0, 0
		was := load(t, d, size)
		if err := apply(d, size, Options{Now: now}, func(tx *Tx) error { return tx.Mkdir("more", Attr{}) }); err != nil {
			t.Fatalf("write %d: %v", kill, err)
		}
		was["more"] = &entry{kind: 2}
		judge(t, d, size, was)
		if kill%4 != 0 && kill < whole.writes-2 || os.Getuid() != 0 {
			continue
		}
		if err := os.WriteFile(file, torn, 0o644); err != nil {
			t.Fatal(err)
		}
		dir, unmount := testenv.Mount(t, file)
		testenv.Run(t, "sh", "-c", "cd "+dir+" && find . -type f | xargs cat > /dev/null")
		unmount()
		got := fmt.Sprint(loadFile(t, file).lines())
		if got != fmt.Sprint(before.lines()) && got != fmt.Sprint(after.lines()) {
			t.Errorf("write %d: after a mount, neither old nor new", kill)
		}
		testenv.CheckExt4(t, file)
	}
}

// What a kernel left in the journal is kept when the patcher changes the image.
func TestRecoversFirst(t *testing.T) {
	for _, args := range [][]string{{"-t", "ext4", "-b", "4096"}, {"-t", "ext4", "-b", "1024", "-O", "^metadata_csum"}, {"-t", "ext3", "-b", "1024"}} {
		image := testenv.Mke2fs(t, smallImage, args...)
		dir, unmount := testenv.Mount(t, image)
		testenv.Run(t, "sh", "-c", "cd "+dir+" && mkdir a && for i in $(seq 100); do echo $i > a/$i; done && sync -f . && rm -rf a/1* && mv a/2 b && sync -f .")
		dirty := filepath.Join(t.TempDir(), "dirty.ext4")
		testenv.Run(t, "cp", "--sparse=always", image, dirty)
		unmount()
		m := loadFile(t, dirty)
		if m["b"] == nil || m["a/1"] != nil {
			t.Fatal("the journal was not read")
		}
		apply1(t, dirty, func(tx *Tx) error {
			return errors.Join(tx.WriteFile("a/77", 3, strings.NewReader("new"), Attr{}), m.write("a/77", "new", Attr{}))
		})
		judgeFile(t, dirty, m)
	}
}

// A file that was deleted while it was open is e2fsck's to remove first.
func TestOrphansAreRefused(t *testing.T) {
	image := testenv.Mke2fs(t, smallImage, "-t", "ext4")
	dir, unmount := testenv.Mount(t, image)
	f, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "sh", "-c", "cd "+dir+" && echo x > open && rm open && echo y > other && sync -f .")
	dirty := filepath.Join(t.TempDir(), "dirty.ext4")
	testenv.Run(t, "cp", "--sparse=always", image, dirty)
	f.Close()
	unmount()
	err = Apply(dirty, fast, func(tx *Tx) error { return tx.Mkdir("x", Attr{}) })
	if err == nil || !strings.Contains(err.Error(), "deleted while they were open") {
		t.Fatal(err)
	}
	if out, err := exec.Command(testenv.RequireTool(t, "e2fsck"), "-p", dirty).CombinedOutput(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
			t.Fatalf("%v: %s", err, out)
		}
	}
	apply1(t, dirty, func(tx *Tx) error { return tx.Mkdir("x", Attr{}) })
	testenv.CheckExt4(t, dirty)
}

// script gives the decisions of a fuzz test.
type script struct{ data []byte }

func (s *script) IntN(n int) int {
	if len(s.data) < 2 {
		return 0
	}
	v := int(s.data[0]) | int(s.data[1])<<8
	s.data = s.data[2:]
	return v % n
}

// Any operations leave an image that the model, the checker and e2fsck agree on.
func FuzzOperations(f *testing.F) {
	var images [][]byte
	for _, format := range formats[:8] {
		image, err := os.ReadFile(seeded(f, 12<<20, "mkdir a && seq -f 'a/n%.0f' 300 | xargs touch && ln a/n1 n1", format.args...))
		if err != nil {
			f.Fatal(err)
		}
		images = append(images, image)
	}
	for i := range images {
		seed := make([]byte, 600)
		rand.NewChaCha8([32]byte{byte(i)}).Read(seed)
		f.Add(uint8(i), seed)
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		d := &disk{data: bytes.Clone(images[int(which)%len(images)])}
		size := int64(len(d.data))
		m := load(t, d, size)
		s := &script{data[:min(len(data), 2000)]}
		for len(s.data) > 1 {
			if err := apply(d, size, fast, func(tx *Tx) error {
				for range 10 {
					op(t, tx, m, s)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		judge(t, d, size, m)
		image := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(image, d.data, 0o644); err != nil {
			t.Fatal(err)
		}
		testenv.CheckExt4(t, image)
	})
}

// Damage ends in an error or in a change, never in a panic or a loop.
func FuzzDamaged(f *testing.F) {
	image, err := os.ReadFile(seeded(f, 4<<20, "mkdir -p a/b && seq -f 'a/n%.0f' 300 | xargs touch && head -c 20000 /dev/urandom > file", "-t", "ext4", "-b", "1024",
		"-O", "^metadata_csum"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(1024), []byte{1}, uint32(4096), []byte{0xFF})
	f.Fuzz(func(t *testing.T, at1 uint32, b1 []byte, at2 uint32, b2 []byte) {
		d := &disk{data: bytes.Clone(image)}
		copy(d.data[int(at1)%len(image):], b1)
		copy(d.data[int(at2)%len(image):], b2)
		_ = apply(d, int64(len(image)), fast, func(tx *Tx) error {
			_ = tx.WriteFile("a/new", 3000, zeros{}, Attr{})
			_ = tx.WriteFile("file", 3000, io.LimitReader(zeros{}, 3000), Attr{})
			_ = tx.Rename("a/n7", "a/b/x")
			_ = tx.Rename("a/b", "c")
			_ = tx.Symlink(strings.Repeat("l", 100), "a/link", Attr{})
			return tx.RemoveAll("a")
		})
	})
}

func BenchmarkPatchOneFile(b *testing.B) {
	image := testenv.Mke2fs(b, 8<<30, "-t", "ext4", "-b", "4096")
	content := strings.Repeat("x", 4000)
	for b.Loop() {
		if err := Apply(image, fast, func(tx *Tx) error {
			return tx.WriteFile("file", int64(len(content)), strings.NewReader(content), Attr{Mode: 0o644})
		}); err != nil {
			b.Fatal(err)
		}
	}
}
