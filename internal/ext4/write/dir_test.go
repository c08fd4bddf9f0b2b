package write_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// numbered yields n entries made by each.
func numbered(n int, each func(i int) tree.Entry) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for i := range n {
			if !yield(each(i), nil) {
				return
			}
		}
	}
}

// Sizes around those at which a directory becomes indexed, and its index gets a second level.
func TestDirectories(t *testing.T) {
	for _, tc := range []struct{ entries, name int }{
		{0, 8}, {1, 255}, {14, 255}, {15, 255}, {16, 255}, {240, 8}, {260, 8}, {1000, 12},
		{507 * 15, 255}, {508 * 15, 255}, {30_000, 100}, {200_000, 20},
	} {
		t.Run(fmt.Sprintf("%d of %d", tc.entries, tc.name), func(t *testing.T) {
			name := func(i int) string { return fmt.Sprintf("%0*d", tc.name, i) }
			image, _ := create(t, options(4<<30), tree.Concat(tree.Of(dir("d")), numbered(tc.entries, func(i int) tree.Entry { return file("d/"+name(i), "") })))
			finds(t, image, "d", tc.entries, name)
		})
	}
}

// finds lets the kernel find each name by itself, which takes the index, and all by listing.
func finds(t *testing.T, image, in string, entries int, name func(int) string) {
	t.Helper()
	mount, unmount := testenv.Mount(t, image, "ro")
	defer unmount()
	d, err := os.Open(filepath.Join(mount, in))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	list, err := d.Readdirnames(-1)
	if err != nil || len(list) != entries {
		t.Fatalf("%d names of %d, %v", len(list), entries, err)
	}
	slices.Sort(list)
	var st unix.Stat_t
	for i := range entries {
		if _, ok := slices.BinarySearch(list, name(i)); !ok {
			t.Fatalf("%q is not listed", name(i))
		}
		if err := unix.Fstatat(int(d.Fd()), name(i), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatalf("%q: %v", name(i), err)
		}
	}
	if err := unix.Fstatat(int(d.Fd()), "not there", &st, 0); err != unix.ENOENT {
		t.Errorf("what is not there: %v", err)
	}
}

// More subdirectories than a directory can count links.
func TestManySubdirectories(t *testing.T) {
	const n = 70_000
	name := func(i int) string { return fmt.Sprint("sub", i) }
	image, _ := create(t, options(4<<30), tree.Concat(tree.Of(dir("d")), numbered(n, func(i int) tree.Entry { return dir("d/" + name(i)) })))
	if n, err := openFS(t, image).Lookup("d", false); err != nil || n.Stat().Links != 1 {
		t.Errorf("%d links, %v", n.Stat().Links, err)
	}
	finds(t, image, "d", n, name)
}

// Names whose hashes are the same, as far as such are found, lie in consecutive blocks; the kernel finds each.
func TestHashedLookupsOfOddNames(t *testing.T) {
	name := func(i int) string { return strings.Repeat("\xff", i%7) + fmt.Sprint(i*i) + strings.Repeat("é", i%11) }
	image, _ := create(t, options(1<<30), tree.Concat(tree.Of(dir("d")), numbered(5000, func(i int) tree.Entry { return file("d/"+name(i), "") })))
	finds(t, image, "d", 5000, name)
}

// Besides what the runtime and the buffers take, an entry costs at most 300 bytes while an image is made.
func TestMemoryOfAnEntry(t *testing.T) {
	const n = 200_000
	held := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before, after uint64
	src := func(yield func(tree.Entry, error) bool) {
		before = held()
		for i := range n {
			if !yield(file(fmt.Sprintf("directory%d/sub%d/file-with-a-name-%d", i/5000, i/100, i), ""), nil) {
				return
			}
		}
		after = held()
	}
	opts := options(8 << 30)
	if _, err := write.CreateFile(t.Context(), filepath.Join(t.TempDir(), "image"), opts, src); err != nil {
		t.Fatal(err)
	}
	if per := (after - before) / n; per > 300 || per < 30 {
		t.Errorf("%d bytes for each entry", per)
	}
}
