package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
)

const key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func TestParse(t *testing.T) {
	want := Default()
	want.Images.Default, want.Images.Order, want.Images.MaxBytes, want.Images.MaxEntries = "mine", []Source{FromPackages, FromCatalog}, 3<<30, 7
	want.Catalog = Catalog{URL: "https://c.example/banger/", Keys: []PublicKey{make([]byte, 32)}}
	want.Debian = Debian{Mirror: "http://m.example/debian", Proxy: "http://u:p@proxy:3128", Keyring: "/keys.gpg"}
	want.VM.MaxMemory = Share{Bytes: 12 << 30}
	want.VMDefaults = VMDefaults{VCPU: 3, Memory: 2 << 30, DiskSize: 20 << 30, AutoStopIdle: Span(36 * time.Hour), Net: banger.NetNone}
	want.FileSync = []banger.FileSync{{Host: "~/.netrc"}, {Host: "~/keys/deploy", Guest: "/root/.ssh/id", Mode: "0400"}}
	got, err := Parse("f", []byte(`
[images]
default = "mine"
order = ["packages", "catalog"]
max_bytes = "3GiB"
max_entries = 7
[catalog]
url = "https://c.example/banger/"
keys = ["`+key+`"]
[debian]
mirror = "http://m.example/debian"
proxy = "http://u:p@proxy:3128"
keyring = "/keys.gpg"
[vm]
max_memory = "12G"
[vm_defaults]
vcpu = 3
memory = "2G"
disk_size = "20GiB"
auto_stop_idle = "1d12h"
net = "none"
[[file_sync]]
host = "~/.netrc"
[[file_sync]]
host = "~/keys/deploy"
guest = "/root/.ssh/id"
mode = "0400"
`))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Parse: %v\n%s", err, diff)
	}
	if got, err := Parse("f", nil); err != nil || cmp.Diff(Default(), got) != "" {
		t.Errorf("Parse of nothing = %+v, %v", got, err)
	}
	if got, err := Parse("f", []byte("[catalog]\nurl = \"/srv/catalog\"\nkeys = [\""+key+"\"]")); err != nil || got.Catalog.URL != "/srv/catalog" {
		t.Errorf("Parse of a catalog's path = %+v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, say, hint string }{
		{"unknown key", "\n[images]\ndefualt = \"x\"", `f:3: unknown key "images.defualt"`, "images.default"},
		{"unknown section", "[image]\ndefault = \"x\"", `f:1: unknown key "image`, "images."},
		{"key at the top", "default = 1", `f:1: unknown key "default"`, "images.default"},
		{"no TOML", "[images]\n= 3", "f:2: ", ""},
		{"twice", "[images]\ndefault = \"a\"\ndefault = \"b\"", "f:", ""},
		{"wrong type", "[images]\ndefault = 3", "f:2: ", ""},
		{"image name", "[images]\ndefault = \"Bad/Name\"", "images.default", ""},
		{"source", "[images]\norder = [\"catalog\", \"store\"]", "want one of catalog, registry, packages", ""},
		{"source twice", "[images]\norder = [\"catalog\", \"catalog\"]", "twice", ""},
		{"size", "[images]\nmax_bytes = \"many\"", "f:2: ", ""},
		{"negative size", "[images]\nmax_bytes = \"-1G\"", "f:2: ", ""},
		{"no bytes", "[images]\nmax_bytes = \"0\"", "images.max_bytes", ""},
		{"no entries", "[images]\nmax_entries = 0", "images.max_entries", ""},
		{"too many entries", "[images]\nmax_entries = 99999999999999999999", "f:2: ", ""},
		{"catalog without keys", "[catalog]\nurl = \"https://c.example\"", "catalog.keys", "keygen"},
		{"key of another size", "[catalog]\nkeys = [\"AAAA\"]", "32 bytes in base64", ""},
		{"key that is none", "[catalog]\nkeys = [\"!\"]", "32 bytes in base64", ""},
		{"catalog by ftp", "[catalog]\nurl = \"ftp://c.example\"\nkeys = [\"" + key + "\"]", "catalog.url", ""},
		{"catalog by a relative path", "[catalog]\nurl = \"catalog\"\nkeys = [\"" + key + "\"]", "absolute path", ""},
		{"mirror", "[debian]\nmirror = \"deb.example\"", "debian.mirror", ""},
		{"proxy", "[debian]\nproxy = \"u:secret@proxy:1\"", "debian.proxy", ""},
		{"share", "[vm]\nmax_memory = \"0%\"", "1% to 1000%", ""},
		{"share that is none", "[vm]\nmax_memory = \"most\"", "f:2: ", ""},
		{"processors", "[vm_defaults]\nvcpu = 999", "vm_defaults: vcpu 999", ""},
		{"no processors", "[vm_defaults]\nvcpu = -1", "vm_defaults: vcpu -1", ""},
		{"little memory", "[vm_defaults]\nmemory = \"10M\"", "vm_defaults: memory 10 MiB", ""},
		{"less memory", "[vm_defaults]\nmemory = \"10K\"", "vm_defaults: memory 0 MiB", ""},
		{"small disk", "[vm_defaults]\ndisk_size = \"0\"", "vm_defaults: disk size 0 B", ""},
		{"image of a VM", "[vm_defaults]\nimage = \"x\"", "unknown key", ""},
		{"policy", "[vm_defaults]\nnet = \"allow=a b\"", "at character 7", ""},
		{"idle time", "[vm_defaults]\nauto_stop_idle = \"soon\"", "f:2: ", ""},
		{"short idle time", "[vm_defaults]\nauto_stop_idle = \"10s\"", "vm_defaults.auto_stop_idle: want at least 1m", ""},
		{"key of a synced file", "[[file_sync]]\nhots = \"~/x\"", `f:2: unknown key "file_sync.hots"`, "file_sync.host"},
		{"synced file", "[[file_sync]]\nhost = \"~/x\"\n[[file_sync]]\nhost = \"x\"", "file_sync[2]: sync \"x\": it is relative", "~/.netrc"},
		{"synced file without host", "[[file_sync]]\nguest = \"~/x\"", "file_sync[1]: ", "~/.netrc"},
		{"synced file of root", "[[file_sync]]\nhost = \"/etc/shadow\"", "file_sync[1]: ", "~/.netrc"},
		{"synced file elsewhere", "[[file_sync]]\nhost = \"~/x\"\nguest = \"/etc/x\"", "file_sync[1]: ", "~/.netrc"},
		{"one place for two", "[[file_sync]]\nhost = \"~/x\"\n[[file_sync]]\nhost = \"~/y\"\nguest = \"~/x\"", "file_sync[2]: file_sync[1] has the same place", ""},
		{"mode", "[[file_sync]]\nhost = \"~/x\"\nmode = \"rw\"", "file_sync[1]: sync", ""},
		{"mode as a number", "[[file_sync]]\nhost = \"~/x\"\nmode = 0o600", "f:3: ", ""},
		{"too many synced files", strings.Repeat("[[file_sync]]\nhost = \"~/x\"\n", 101), "at most 100", ""},
		{"keyring", "[debian]\nkeyring = \"keys\"", "debian.keyring", ""},
	} {
		_, err := Parse("f", []byte(tc.text))
		if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), tc.say) || !strings.Contains(banger.HintOf(err), tc.hint) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v (hint %q), want %q and hint %q", tc.name, err, banger.HintOf(err), tc.say, tc.hint)
		}
	}
}

func TestLoad(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("BANGER_CONFIG", "")
	t.Setenv("BANGER_MIRROR", "")
	put := func(path, image string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("[images]\ndefault = \""+image+"\"\n"), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(image string) {
		t.Helper()
		if cfg, err := Load(); err != nil || cfg.Images.Default != image {
			t.Errorf("Load = %+v, %v, want %s", cfg, err, image)
		}
	}
	wantError := func(kind error, say, hint string) {
		t.Helper()
		if _, err := Load(); !errors.Is(err, kind) || !strings.Contains(err.Error(), say) || !strings.Contains(banger.HintOf(err), hint) {
			t.Errorf("Load: %v (hint %q), want %v with %q and hint %q", err, banger.HintOf(err), kind, say, hint)
		}
	}
	want(Default().Images.Default)
	put(filepath.Join(home, ".config/banger/config.toml"), "of-home", 0o644)
	want("of-home")
	xdg := filepath.Join(t.TempDir(), "xdg")
	t.Setenv("XDG_CONFIG_HOME", xdg)
	want(Default().Images.Default)
	put(filepath.Join(xdg, "banger/config.toml"), "of-xdg", 0o400)
	want("of-xdg")
	own := filepath.Join(t.TempDir(), "own.toml")
	t.Setenv("BANGER_CONFIG", own)
	wantError(banger.ErrNotFound, own, "BANGER_CONFIG")
	for _, mode := range []os.FileMode{0o620, 0o602, 0o666} {
		put(own, "own", mode)
		wantError(banger.ErrRefused, own, "chmod go-w "+own)
	}
	put(own, "own", 0o600)
	want("own")
	t.Setenv("BANGER_MIRROR", "http://elsewhere/debian")
	if cfg, err := Load(); err != nil || cfg.Debian.Mirror != "http://elsewhere/debian" {
		t.Errorf("mirror %q, %v", cfg.Debian.Mirror, err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(own, 12345, 0); err != nil {
			t.Fatal(err)
		}
		wantError(banger.ErrRefused, "12345", "chown")
	}
	if err := errors.Join(os.Remove(own), syscall.Mkfifo(own, 0o600)); err != nil {
		t.Fatal(err)
	}
	wantError(banger.ErrInvalid, "regular", "")
	if err := errors.Join(os.Remove(own), os.WriteFile(own, bytes.Repeat([]byte("\n"), maxFile+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	wantError(banger.ErrInvalid, "1 MiB", "")
	t.Setenv("BANGER_CONFIG", "own.toml")
	wantError(banger.ErrInvalid, "absolute", "")
}

// Where a value comes from is told for each: the environment stands above the file, and that above what is built in.
func TestSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	text := "[vm_defaults]\nmemory = \"1G\"\nvcpu = 2\n[debian]\nproxy = \"http://user:secret@proxy:3128\"\n[catalog]\nkeys = [\"" + key + "\"]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(Keys(), "mirror") {
		t.Setenv(Variable(name), "")
	}
	for name, value := range map[string]string{"BANGER_CONFIG": path, "BANGER_VM_DEFAULTS_MEMORY": "2GiB", "BANGER_VM_MAX_MEMORY": "50%", "BANGER_SSH_START": "true",
		"BANGER_IMAGES_DEFAULT": "web", "BANGER_IMAGES_MAX_ENTRIES": "9", "BANGER_IMAGES_ORDER": `["packages", "catalog"]`, "BANGER_MIRROR": "http://one/debian"} {
		t.Setenv(name, value)
	}
	l, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]banger.Setting{
		"vm_defaults.memory":         {Value: "2 GiB", From: "$BANGER_VM_DEFAULTS_MEMORY"},
		"vm_defaults.vcpu":           {Value: "2", From: path},
		"vm_defaults.disk_size":      {Value: "8 GiB", From: BuiltIn},
		"vm_defaults.auto_stop_idle": {Value: "0s", From: BuiltIn},
		"vm.max_memory":              {Value: "50%", From: "$BANGER_VM_MAX_MEMORY"},
		"ports.publish":              {Value: "need", From: BuiltIn},
		"ssh.start":                  {Value: "true", From: "$BANGER_SSH_START"},
		"images.default":             {Value: "web", From: "$BANGER_IMAGES_DEFAULT"},
		"images.max_entries":         {Value: "9", From: "$BANGER_IMAGES_MAX_ENTRIES"},
		"images.order":               {Value: "packages, catalog", From: "$BANGER_IMAGES_ORDER"},
		"images.registry":            {Value: "", From: BuiltIn},
		"debian.mirror":              {Value: "http://one/debian", From: "$BANGER_MIRROR"},
		"debian.proxy":               {Value: "http://user:xxxxx@proxy:3128", From: path},
		"catalog.keys":               {Value: key, From: path},
	}
	var keys []string
	for _, s := range l.Settings() {
		keys = append(keys, s.Key)
		if w, ok := want[s.Key]; ok && (s.Value != w.Value || s.From != w.From) {
			t.Errorf("%s is %q from %q, want %q from %q", s.Key, s.Value, s.From, w.Value, w.From)
		}
	}
	if diff := cmp.Diff(Keys(), keys); diff != "" {
		t.Errorf("Settings (-keys +told):\n%s", diff)
	}
	t.Setenv("BANGER_CONFIG", path+".sync")
	if err := os.WriteFile(path+".sync", []byte("[[file_sync]]\nhost = \"~/.netrc\"\nmode = \"0640\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	synced, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	list := synced.Settings()
	if last := list[len(list)-1]; last != (banger.Setting{Key: "file_sync[1]", Value: "~/.netrc with mode 0640", From: path + ".sync"}) {
		t.Errorf("the synced file is told as %+v", last)
	}
	if l.VM.MaxMemory.Of(16<<30) != 16<<30/100*50 || (Share{Bytes: 7}).Of(16<<30) != 7 {
		t.Errorf("shares: %d", l.VM.MaxMemory.Of(16<<30))
	}
	t.Setenv("BANGER_DEBIAN_MIRROR", "http://two/debian")
	if l, err := Load(); err != nil || l.Debian.Mirror != "http://two/debian" {
		t.Errorf("mirror %q, %v", l.Debian.Mirror, err)
	}
	for name, value := range map[string]string{"BANGER_VM_DEFAULTS_VCPU": "many", "BANGER_VM_MAX_MEMORY": "0%", "BANGER_IMAGES_ORDER": "catalog",
		"BANGER_VM_DEFAULTS_DISK_SIZE": "1K", "BANGER_SSH_START": "1\n[debian]\nmirror = \"http://evil\"", "BANGER_CATALOG_URL": "ftp://x"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if _, err := Load(); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%q: %v, want invalid with the variable's name", name, value, err)
			}
		})
	}
}

// The page has every key and no other, and shows the values that hold without a file.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+\\.[a-z_]+)` \\|").FindAllSubmatch(page, -1) {
		documented = append(documented, string(row[1]))
	}
	if diff := cmp.Diff(Keys(), documented); diff != "" {
		t.Errorf("docs/config.md (-keys +documented):\n%s", diff)
	}
	example := regexp.MustCompile("(?s)```toml\n(.*?)```").FindSubmatch(page)
	if example == nil {
		t.Fatal("docs/config.md has no example")
	}
	cfg, err := Parse("docs/config.md", example[1])
	cfg.Catalog.Keys = slices.Clip(cfg.Catalog.Keys)
	want := Default()
	want.Catalog.Keys = []PublicKey{}
	if diff := cmp.Diff(want, cfg); diff != "" || err != nil {
		t.Errorf("the example: %v\n%s", err, diff)
	}
	for _, key := range Keys() {
		if _, name, _ := strings.Cut(key, "."); !bytes.Contains(example[1], []byte("\n"+name+" = ")) {
			t.Errorf("the example lacks %s", key)
		}
	}
}

// What Parse takes it takes again in the same way, and what it refuses it refuses with a kind.
func FuzzParse(f *testing.F) {
	f.Add([]byte("[images]\ndefault = \"x\"\norder = []\nmax_bytes = \"1G\"\n[catalog]\nkeys = [\"" + key + "\"]\n"))
	f.Add([]byte("[images.order]\nx = 1\n"))
	f.Add([]byte("[[file_sync]]\nhost = \"~/x\"\nmode = \"0600\"\n"))
	f.Add([]byte("images = 3\n[[catalog]]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Parse("f", text)
		if err != nil && !errors.Is(err, banger.ErrInvalid) {
			t.Fatalf("Parse: %v has no kind", err)
		}
		if err == nil && cfg.validate() != nil {
			t.Fatalf("Parse gave %+v, which does not hold", cfg)
		}
	})
}

func TestMistyped(t *testing.T) {
	environ := []string{"PATH=/bin", "BANGER_CONFIG=/x", "BANGER_VM_DEFAULTS_MEMORY=2G", "BANGER_MIRROR=x", "BANGER_PAGER=less", "BANGER_PAGR=less", "BANGER_TIER=smoke", "BANGER_REQUIRE=kvm", "BANGER_SCOPE=x",
		"BANGER_=x", "BANGER", "BANGER_SOMETHING_OF_MY_OWN=1", "BANGER_VM_DEFAULT_MEMORY=2G", "BANGER_STATEDIR=/x", "BANGER_VM_DEFAULTS_\x1b[2JMEMORY=x"}
	want := []string{`"BANGER_PAGR" sets nothing: did you mean BANGER_PAGER?`, `"BANGER_STATEDIR" sets nothing: did you mean BANGER_STATE_DIR?`, `"BANGER_VM_DEFAULTS_\x1b[2JMEMORY" sets nothing: did you mean BANGER_VM_DEFAULTS_MEMORY?`,
		`"BANGER_VM_DEFAULT_MEMORY" sets nothing: did you mean BANGER_VM_DEFAULTS_MEMORY?`}
	if got := Mistyped(environ); !slices.Equal(got, want) {
		t.Errorf("Mistyped = %q, want %q", got, want)
	}
}
