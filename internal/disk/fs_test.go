package disk

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/tree"
)

// made writes a small file system.
func made(t testing.TB, entries ...tree.Entry) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image.ext4")
	opts := write.Options{SizeBytes: 8 << 20, JournalBlocks: -1, Time: time.Unix(1e9, 0)}
	if _, err := write.CreateFile(t.Context(), image, opts, tree.Of(entries...)); err != nil {
		t.Fatal(err)
	}
	return image
}

// upper makes a disk whose upper directory has these entries. The binds are bare.
func upper(t testing.TB, entries ...tree.Entry) string {
	t.Helper()
	all := []tree.Entry{tree.Literal(banger.DiskLayoutFile, 0o444, []byte("1\n")), tree.Directory("overlay", 0o755), tree.Directory(banger.DiskUpperDir, 0o755),
		tree.Directory("data", 0o755), tree.Literal(filledMark, 0o600, nil)}
	for _, bind := range banger.DiskBinds {
		all = append(all, tree.Directory(bind.Dir, bind.Mode))
	}
	for _, e := range entries {
		e.Path = path.Join(banger.DiskUpperDir, e.Path)
		if e.Kind == tree.HardLink {
			e.Link = path.Join(banger.DiskUpperDir, e.Link)
		}
		all = append(all, e)
	}
	return made(t, all...)
}

// marked is a directory with an attribute of the overlay.
func marked(name, attr, value string) tree.Entry {
	e := tree.Directory(name, 0o755)
	e.Xattrs = map[string][]byte{attr: []byte(value)}
	return e
}

func whiteout(name string) tree.Entry { return tree.Entry{Path: name, Kind: tree.CharDevice} }

func smallBase(t testing.TB) string {
	t.Helper()
	return made(t, tree.Directory("etc", 0o755), tree.Literal("etc/motd", 0o644, []byte("hello")), tree.Directory("usr", 0o755), tree.Directory("usr/lib", 0o755),
		tree.Literal("usr/lib/a", 0o644, []byte("a")), tree.Entry{Path: "lib", Kind: tree.Symlink, Link: "usr/lib"}, tree.Directory("root", 0o700),
		tree.Entry{Path: "around", Kind: tree.Symlink, Link: "around"}, tree.Entry{Path: "abs", Kind: tree.Symlink, Link: "/etc/../usr"})
}

func TestLookup(t *testing.T) {
	f := openView(t, smallBase(t), upper(t, marked("moved", redirectAttr, "/usr/lib"), marked("opaque", opaqueAttr, "y"), whiteout("etc"), whiteout("nothing")))
	for _, tc := range []struct {
		path   string
		follow bool
		want   string // path in the guest
		err    error
	}{
		{"/", false, "/", nil},
		{"", false, "/", nil},
		{"/usr/lib/a", false, "/usr/lib/a", nil},
		{"usr//lib/./a", false, "/usr/lib/a", nil},
		{"/lib/a", false, "/usr/lib/a", nil},
		{"/lib", false, "/lib", nil},
		{"/lib", true, "/usr/lib", nil},
		{"/lib/", false, "/usr/lib", nil},
		{"/../../usr", false, "/usr", nil},
		{"/moved/a", false, "/moved/a", nil},
		{"/root", false, "/root", nil},
		{"/opaque/a", false, "", banger.ErrNotFound},
		{"/etc", false, "", banger.ErrNotFound},
		{"/etc/motd", false, "", banger.ErrNotFound},
		{"/nothing", false, "", banger.ErrNotFound},
		{"/abs/lib", false, "", banger.ErrNotFound}, // through /etc, which is gone
		{"/usr/lib/a/b", false, "", banger.ErrInvalid},
		{"/usr/lib/a/", false, "", banger.ErrInvalid},
		{"/around", true, "", banger.ErrInvalid},
		{"/around", false, "/around", nil},
	} {
		n, err := f.Lookup(tc.path, tc.follow)
		if !errors.Is(err, tc.err) || err == nil && n.path != tc.want {
			t.Errorf("Lookup(%q, %v) = %v, %v, want %q, %v", tc.path, tc.follow, n, err, tc.want, tc.err)
		}
	}
}

// What only a guest that forges its disk has.
func TestForgedMarks(t *testing.T) {
	base := smallBase(t)
	for _, tc := range []struct {
		name    string
		entries []tree.Entry
		err     error
		want    string // a path that must be there
	}{
		{"redirect out of the tree", []tree.Entry{marked("x", redirectAttr, "..")}, banger.ErrCorrupt, ""},
		{"absolute redirect out of the tree", []tree.Entry{marked("x", redirectAttr, "/usr/../../x")}, banger.ErrCorrupt, ""},
		{"redirect to a path", []tree.Entry{marked("x", redirectAttr, "usr/lib")}, banger.ErrCorrupt, ""},
		{"redirect to the root", []tree.Entry{marked("x", redirectAttr, "/")}, banger.ErrCorrupt, ""},
		{"empty redirect", []tree.Entry{marked("x", redirectAttr, "")}, banger.ErrCorrupt, ""},
		{"redirect with a zero byte", []tree.Entry{marked("x", redirectAttr, "usr\x00")}, banger.ErrCorrupt, ""},
		{"redirect to a long name", []tree.Entry{marked("x", redirectAttr, strings.Repeat("n", 256))}, banger.ErrCorrupt, ""},
		{"redirect to nothing", []tree.Entry{marked("x", redirectAttr, "/no/such")}, nil, "x"},
		{"redirect through a file", []tree.Entry{marked("x", redirectAttr, "/etc/motd/y")}, nil, "x"},
		{"redirect to a file", []tree.Entry{marked("x", redirectAttr, "/etc/motd")}, nil, "x"},
		{"redirect through a link", []tree.Entry{marked("x", redirectAttr, "/lib")}, nil, "x"},
		{"two to one directory", []tree.Entry{whiteout("usr"), marked("x", redirectAttr, "/usr"), marked("y", redirectAttr, "/usr")}, banger.ErrCorrupt, ""},
		{"into its own parent", []tree.Entry{tree.Directory("usr", 0o755), marked("usr/in", redirectAttr, "/usr")}, banger.ErrCorrupt, ""},
		{"one that is still in place", []tree.Entry{marked("x", redirectAttr, "/usr/lib")}, banger.ErrCorrupt, ""},
		{"opaque and redirected", []tree.Entry{{Path: "x", Kind: tree.Dir, Mode: 0o755, Xattrs: map[string][]byte{opaqueAttr: []byte("y"), redirectAttr: []byte("..")}}}, nil, "x"},
		{"opaque by another value", []tree.Entry{marked("usr", opaqueAttr, "x")}, nil, "usr/lib/a"},
		{"marks on a file", []tree.Entry{{Path: "x", Kind: tree.File, Xattrs: map[string][]byte{opaqueAttr: []byte("y"), redirectAttr: []byte("..")}}}, nil, "x"},
		{"content elsewhere", []tree.Entry{{Path: "x", Kind: tree.File, Xattrs: map[string][]byte{metacopyAttr: nil}}}, banger.ErrCorrupt, ""},
		{"whiteout of a directory with a bind", []tree.Entry{whiteout("root")}, nil, "etc/motd"},
		{"a file in the place of a bind", []tree.Entry{tree.Literal("root", 0o644, nil)}, nil, "root"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := openView(t, base, upper(t, tc.entries...))
			var paths []string
			var err error
			for e, fault := range rootOf(t, f).Source(".") {
				if err = fault; err == nil {
					paths = append(paths, e.Path)
				}
			}
			if !errors.Is(err, tc.err) {
				t.Errorf("walk: %v, want %v", err, tc.err)
			}
			if tc.want != "" && !slices.Contains(paths, tc.want) {
				t.Errorf("%q is missing in %q", tc.want, paths)
			}
		})
	}
}

// A user's own attributes of the overlay's name space, of an overlay in the guest's overlay, lose the mark that hides them.
func TestEscapedAttributes(t *testing.T) {
	f := openView(t, smallBase(t), upper(t, tree.Entry{Path: "x", Kind: tree.Dir, Mode: 0o755, Xattrs: map[string][]byte{
		"trusted.overlay.overlay.opaque": []byte("y"), "trusted.overlay.origin": []byte("?"), "user.kept": []byte("k")}}))
	n, err := f.Lookup("/x", false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := n.Xattrs()
	if err != nil || len(got) != 2 || string(got["trusted.overlay.opaque"]) != "y" || string(got["user.kept"]) != "k" {
		t.Errorf("Xattrs = %q, %v", got, err)
	}
}

func TestOpenFSRefuses(t *testing.T) {
	base := smallBase(t)
	for name, tc := range map[string]struct {
		disk string
		want error
	}{
		"no layout":     {made(t, tree.Directory("overlay", 0o755)), banger.ErrCorrupt},
		"newer layout":  {made(t, tree.Literal("layout", 0o444, []byte("2\n"))), banger.ErrUnsupported},
		"no upper":      {made(t, tree.Literal("layout", 0o444, []byte("1\n"))), banger.ErrCorrupt},
		"layout a link": {made(t, tree.Entry{Path: "layout", Kind: tree.Symlink, Link: "layout"}), banger.ErrUnsupported},
		"upper a file":  {made(t, tree.Literal("layout", 0o444, []byte("1\n")), tree.Directory("overlay", 0o755), tree.Literal("overlay/upper", 0o644, nil)), banger.ErrCorrupt},
	} {
		file, err := os.Open(tc.disk)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		below, err := os.Open(base)
		if err != nil {
			t.Fatal(err)
		}
		defer below.Close()
		if _, err := OpenFS(below, 8<<20, file, 8<<20); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// FuzzFS makes upper directories with every mark of an overlay, forged and not. A walk ends with no more entries than both file systems
// have, parents first and no path twice; each path that it gives can be looked up and is the same file; what fails is a fault of the disk.
func FuzzFS(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 1, 3}, "usr")
	f.Add([]byte{0, 0, 1, 2, 0, 1, 2, 5, 2, 0, 3, 0}, "/usr/lib")
	f.Add([]byte{0, 0, 4, 6, 3, 1, 5, 0, 4, 2, 6, 0}, "..")
	f.Fuzz(func(t *testing.T, script []byte, redirect string) {
		entries := upperOf(script, redirect)
		fsys, err := tryView(t, smallBase(t), upper(t, entries...))
		if errors.Is(err, banger.ErrCorrupt) {
			return // a mark on the way to what is bound
		}
		if err != nil {
			t.Fatal(err)
		}
		limit := len(entries) + 100
		seen := map[string]tree.Kind{".": tree.Dir}
		for e, err := range rootOf(t, fsys).Source(".") {
			if err != nil {
				if !errors.Is(err, banger.ErrCorrupt) {
					t.Fatalf("%v is no fault of the disk", err)
				}
				return
			}
			if _, twice := seen[e.Path]; twice && e.Path != "." || seen[path.Dir(e.Path)] != tree.Dir || len(seen) > limit {
				t.Fatalf("entry %q after %d others", e.Path, len(seen))
			}
			seen[e.Path] = e.Kind
			n, err := fsys.Lookup(e.Path, false)
			if err != nil {
				t.Fatalf("Lookup(%q): %v", e.Path, err)
			}
			if found, err := n.Entry(e.Path); err != nil || e.Kind != tree.HardLink && (found.Kind != e.Kind || found.Size != e.Size || found.Mode != e.Mode) {
				t.Fatalf("Lookup(%q) = %+v, %v, the walk gave %+v", e.Path, found, err, e)
			}
		}
	})
}

// upperOf reads four bytes as one entry: kind, parent, name and mark.
func upperOf(script []byte, redirect string) (entries []tree.Entry) {
	dirs, files, taken := []string{"."}, []string{}, map[string]bool{}
	names := []string{"etc", "usr", "lib", "root", "motd", "a", "x", "y", "home", "var"}
	marks := []string{"", "y", "/", "..", "/usr", "/usr/lib", "etc", "/etc/motd", redirect}
	for ; len(script) >= 4 && len(entries) < 100; script = script[4:] {
		e := tree.Entry{Path: path.Join(dirs[int(script[1])%len(dirs)], names[int(script[2])%len(names)]), Mode: 0o755}
		if taken[e.Path] {
			continue
		}
		taken[e.Path] = true
		attr := []string{opaqueAttr, redirectAttr, metacopyAttr, "trusted.overlay.overlay.x"}[int(script[3]>>4)%4]
		if script[3] != 0 {
			e.Xattrs = map[string][]byte{attr: []byte(marks[int(script[3]&15)%len(marks)])}
		}
		switch script[0] % 5 {
		case 0, 1:
			e.Kind, dirs = tree.Dir, append(dirs, e.Path)
		case 2:
			e.Kind, files = tree.File, append(files, e.Path)
		case 3:
			e.Kind, e.Xattrs = tree.CharDevice, nil
		case 4:
			if len(files) == 0 {
				continue
			}
			e = tree.Entry{Path: e.Path, Kind: tree.HardLink, Link: files[int(script[3])%len(files)]}
		}
		entries = append(entries, e)
	}
	return entries
}
