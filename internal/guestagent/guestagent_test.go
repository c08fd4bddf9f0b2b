package guestagent

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
)

// files writes a tree of name → content and gives its directory.
func files(t testing.TB, tree map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(tree[name]), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindAccount(t *testing.T) {
	dir := files(t, map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/bash\nmalformed\nbad:x:y:0::/:\nalice:x:1000:1001:Alice,,,:/home/alice:/bin/zsh\ntwin:x:1000:7::/twin:/bin/sh\n42:x:77:78::/n:/bin/sh\nplain:x:5:5:::\n",
		"group":  "root:x:0:\nsudo:x:27:bob,alice\ndocker:x:999:alice\nlike:x:5:alicelike\n",
	})
	who := accounts{filepath.Join(dir, "passwd"), filepath.Join(dir, "group")}
	alice := account{Name: "alice", UID: 1000, GID: 1001, Groups: []uint32{27, 999}, Home: "/home/alice", Shell: "/bin/zsh"}
	aliceWith := func(gid uint32) account {
		a := alice
		a.GID, a.Groups = gid, nil
		return a
	}
	for _, tc := range []struct {
		user string
		want account
		ok   bool
	}{
		{"", account{Name: "root", Home: "/root", Shell: "/bin/bash"}, true},
		{"alice", alice, true},
		{"1000", alice, true},
		{"1000:5", aliceWith(5), true},
		{"plain", account{Name: "plain", UID: 5, GID: 5, Home: "/", Shell: "/bin/sh"}, true},
		{"42", account{Name: "42", UID: 77, GID: 78, Home: "/n", Shell: "/bin/sh"}, true}, // a name wins over a number
		{"9:8", account{UID: 9, GID: 8, Home: "/", Shell: "/bin/sh"}, true},
		{"9", account{UID: 9, Home: "/", Shell: "/bin/sh"}, true},
		{"nobody", account{}, false},
		{"alice:x", account{}, false},
		{"1000:x", account{}, false},
		{"-1", account{}, false},
		{"4294967296", account{}, false},
	} {
		got, err := who.find(tc.user)
		if (err == nil) != tc.ok || tc.ok && !cmp.Equal(got, tc.want) {
			t.Errorf("find(%q) = %+v, %v, want %+v, ok %v", tc.user, got, err, tc.want, tc.ok)
		}
	}
	none := accounts{filepath.Join(dir, "none"), filepath.Join(dir, "none")}
	if got, err := none.find(""); err != nil || got.Home != "/root" || got.Shell != "/bin/sh" {
		t.Errorf("root without account files = %+v, %v", got, err)
	}
}

func TestLookPath(t *testing.T) {
	dir := files(t, map[string]string{"a/tool": "", "b/tool": "", "b/plain": "", "b/dir/x": ""})
	if err := os.Chmod(filepath.Join(dir, "b/tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a") + ":" + filepath.Join(dir, "b")
	for _, tc := range []struct {
		name, path, want string
		errno            syscall.Errno
	}{
		{"tool", path, filepath.Join(dir, "b/tool"), 0},
		{"tool", "a:b", filepath.Join(dir, "b/tool"), 0},
		{"plain", path, "", syscall.EACCES},
		{"dir", path, "", syscall.EACCES},
		{"none", path, "", syscall.ENOENT},
		{"tool", "", "", syscall.ENOENT},
		{"b/tool", path, "b/tool", 0},
		{"./b/none", path, "", syscall.ENOENT},
		{"b/tool/x", path, "", syscall.ENOTDIR},
		{"b/dir", path, "", syscall.EACCES},
	} {
		got, err := lookPath(tc.name, tc.path, dir)
		var start *startError
		if got != tc.want || (err != nil) != (tc.errno != 0) || errors.As(err, &start) && start.errno != tc.errno {
			t.Errorf("lookPath(%q, %q) = %q, %v, want %q, errno %d", tc.name, tc.path, got, err, tc.want, tc.errno)
		}
	}
}

func TestEnvList(t *testing.T) {
	got, err := envList(map[string]string{"B": "2", "A": "=\n"})
	if want := []string{"A==\n", "B=2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("envList = %q, %v, want %q", got, err, want)
	}
	for _, bad := range []map[string]string{{"": "x"}, {"A=B": "x"}, {"A\x00": "x"}, {"A": "x\x00"}} {
		if got, err := envList(bad); err == nil {
			t.Errorf("envList(%q) = %q, want an error", bad, got)
		}
	}
}

func TestHostsWith(t *testing.T) {
	for _, tc := range []struct{ name, hosts, want string }{
		{"no file", "", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tvm\n"},
		{"added", "127.0.0.1 localhost\n# mine\n", "127.0.0.1 localhost\n# mine\n127.0.1.1\tvm\n"},
		{"replaced", "127.0.1.1 old\n10.0.0.1 db\n127.0.1.1 older", "127.0.1.1\tvm\n10.0.0.1 db\n"},
		{"no newline at the end", "127.0.0.1 localhost", "127.0.0.1 localhost\n127.0.1.1\tvm\n"},
		{"an address that begins alike", "127.0.1.10 x\n", "127.0.1.10 x\n127.0.1.1\tvm\n"},
	} {
		got := hostsWith(tc.hosts, "vm")
		if got != tc.want {
			t.Errorf("%s: hostsWith = %q, want %q", tc.name, got, tc.want)
		}
		if again := hostsWith(got, "vm"); again != got {
			t.Errorf("%s: a second time it gives %q", tc.name, again)
		}
	}
}

func TestResolveModules(t *testing.T) {
	x := moduleIndex{files(t, map[string]string{
		"modules.dep": "kernel/fs/fuse/fuse.ko:\nkernel/net/ip-tables.ko.xz: kernel/net/x_tables.ko\n" +
			"kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\nkernel/net/x_tables.ko:\n",
		"modules.alias":   "# Aliases\nalias char-major-10-229 fuse\nalias fs-a a\nalias pci:v00001AF4d*sv*sd* b\nalias acpi*:PNP[0-9]: fuse\nalias both fuse\nalias both c\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
	})}
	for _, tc := range []struct {
		name string
		want []string
		ok   bool
	}{
		{"fuse", []string{"kernel/fs/fuse/fuse.ko"}, true},
		{"ip_tables", []string{"kernel/net/x_tables.ko", "kernel/net/ip-tables.ko.xz"}, true},
		{"ip-tables", []string{"kernel/net/x_tables.ko", "kernel/net/ip-tables.ko.xz"}, true},
		{"a", []string{"kernel/c.ko", "kernel/b.ko", "kernel/a.ko"}, true},
		{"fs-a", []string{"kernel/c.ko", "kernel/b.ko", "kernel/a.ko"}, true},
		{"char-major-10-229", []string{"kernel/fs/fuse/fuse.ko"}, true},
		{"pci:v00001AF4d00001000sv1sd2", []string{"kernel/c.ko", "kernel/b.ko"}, true},
		{"acpi:PNP0:", []string{"kernel/fs/fuse/fuse.ko"}, true},
		{"both", []string{"kernel/fs/fuse/fuse.ko", "kernel/c.ko"}, true},
		{"ext4", nil, true},
		{"none", nil, false},
		{"", nil, false},
	} {
		got, err := x.resolve(tc.name)
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], x.dir+"/")
		}
		if (err == nil) != tc.ok || !slices.Equal(got, tc.want) {
			t.Errorf("resolve(%q) = %q, %v, want %q, ok %v", tc.name, got, err, tc.want, tc.ok)
		}
	}
	if _, err := (moduleIndex{"/nowhere"}).resolve("fuse"); !errors.Is(err, errNoModule) {
		t.Errorf("resolve without an index = %v, want %v", err, errNoModule)
	}
}

func TestCheckLayout(t *testing.T) {
	for _, tc := range []struct {
		name string
		tree map[string]string
		ok   bool
	}{
		{"known", map[string]string{"layout": "1\n"}, true},
		{"newer", map[string]string{"layout": "2\n"}, false},
		{"garbage", map[string]string{"layout": strings.Repeat("x", 100)}, false},
		{"missing", map[string]string{}, false},
	} {
		if err := checkLayout(files(t, tc.tree)); (err == nil) != tc.ok {
			t.Errorf("%s: %v, want ok %v", tc.name, err, tc.ok)
		}
	}
}

func TestFill(t *testing.T) {
	source := files(t, map[string]string{"alice/file": "content", "alice/.profile": "x"})
	if err := errors.Join(os.Symlink("file", filepath.Join(source, "alice/link")), os.Chmod(filepath.Join(source, "alice/file"), 0o4711),
		os.Chmod(filepath.Join(source, "alice"), 0o700), os.Mkdir(filepath.Join(source, "empty"), 0o750)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "home")
	// What a first boot that was cut off left.
	if err := errors.Join(os.Mkdir(dir, 0o755), os.MkdirAll(dir+".new/half", 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := fill(dir, source); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list(t, source), list(t, dir)); diff != "" {
		t.Errorf("the copy differs (-image +disk):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(source, "late"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before := list(t, dir)
	if err := fill(dir, source); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, list(t, dir)); diff != "" {
		t.Errorf("a directory with content was changed:\n%s", diff)
	}
}

// list describes a tree: mode, time and content by path.
func list(t *testing.T, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String() + " " + info.ModTime().String()
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(b)
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text = link
		}
		rel, err := filepath.Rel(root, path)
		got[rel] = text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFindPort(t *testing.T) {
	class := files(t, map[string]string{"vport0p1/name": "other\n", "vport0p2/name": portName + "\n"})
	if got := findPort(class); got != "vport0p2" {
		t.Errorf("findPort = %q, want vport0p2", got)
	}
	if got := findPort(t.TempDir()); got != "" {
		t.Errorf("findPort without ports = %q", got)
	}
}

func FuzzParsePasswd(f *testing.F) {
	f.Add("alice:x:1000:1001:Alice:/home/alice:/bin/zsh")
	f.Add(":::::::")
	f.Fuzz(func(t *testing.T, line string) {
		acct, ok := parsePasswd(line)
		if ok && (acct.Name == "" || acct.Home == "" || acct.Shell == "" || strings.Contains(acct.Home, ":") || !strings.HasPrefix(line, acct.Name+":")) {
			t.Errorf("parsePasswd(%q) = %+v", line, acct)
		}
	})
}

func FuzzHostsWith(f *testing.F) {
	f.Add("127.0.0.1 localhost\n127.0.1.1 old\n")
	f.Fuzz(func(t *testing.T, hosts string) {
		once := hostsWith(hosts, "vm")
		if hostsWith(once, "vm") != once || !strings.Contains(once, "127.0.1.1\tvm\n") {
			t.Errorf("hostsWith(%q) = %q", hosts, once)
		}
	})
}

// What a session takes starts a process that the kernel accepts, and is bounded.
func FuzzSessionRequests(f *testing.F) {
	f.Add("pty-req", []byte("\x00\x00\x00\x05xterm\x00\x00\x00\x50\x00\x00\x00\x18\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add("env", []byte("\x00\x00\x00\x01A\x00\x00\x00\x01B"))
	f.Add("exec", []byte("\x00\x00\x00\x02ls"))
	f.Add("subsystem", []byte("\x00\x00\x00\x04sftp"))
	f.Add(agentRequest, []byte{})
	f.Fuzz(func(t *testing.T, request string, payload []byte) {
		s := session{req: banger.ExecRequest{Env: map[string]string{}}}
		for range maxEnvRequests + 2 {
			s.take(request, payload)
		}
		if _, err := envList(s.req.Env); err != nil || len(s.req.Env) > maxEnvRequests || hasNUL(s.command) {
			t.Errorf("take(%q, %q) lets through %+v: %v", request, payload, s, err)
		}
		if p := s.req.PTY; p != nil && (len(p.Term) > maxTerminalName || hasNUL(p.Term)) {
			t.Errorf("take(%q, %q) lets through terminal %q", request, payload, p.Term)
		}
		parseWindow(payload)
		if sig := parseSignal(payload); sig < 0 || sig > 64 {
			t.Errorf("parseSignal(%q) = %d", payload, sig)
		}
	})
}
