package image

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/api"
	"banger/internal/tree"
)

func TestArgs(t *testing.T) {
	keyring := distributions["ubuntu"].keyring
	for _, tc := range []struct {
		name            string
		def             definition
		mirror, keyring string
		want            string
	}{
		{"plain", definition{From: "debian:bookworm", Packages: []string{"git", "curl"}}, "", "", "--include=git,curl|bookworm|-"},
		{"no packages", definition{From: "debian:trixie"}, "", "", "trixie|-"},
		{"the daemon's mirror", definition{From: "debian:bookworm"}, "http://m/debian", "/k.gpg", "--keyring=/k.gpg|bookworm|-|http://m/debian"},
		{"mirror of its own", definition{From: "debian:bookworm", Mirror: "http://own/debian"}, "http://m/debian", "", "bookworm|-|http://own/debian"},
		{"components", definition{From: "debian:bookworm", Components: []string{"main", "contrib"}}, "", "", "--components=main,contrib|bookworm|-"},
		{"ubuntu", definition{From: "ubuntu:noble"}, "http://m/debian", "/k.gpg", "--components=main,universe|noble|-" +
			"|deb [signed-by=" + keyring + "] http://archive.ubuntu.com/ubuntu noble main universe" +
			"|deb [signed-by=" + keyring + "] http://archive.ubuntu.com/ubuntu noble-updates main universe" +
			"|deb [signed-by=" + keyring + "] http://security.ubuntu.com/ubuntu noble-security main universe"},
		{"ubuntu with a mirror", definition{From: "ubuntu:jammy", Mirror: "http://own/ubuntu", Components: []string{"main"}}, "", "", "jammy|-" +
			"|deb [signed-by=" + keyring + "] http://own/ubuntu jammy main" +
			"|deb [signed-by=" + keyring + "] http://own/ubuntu jammy-updates main" +
			"|deb [signed-by=" + keyring + "] http://own/ubuntu jammy-security main"},
	} {
		tc.def.Variant = defaultVariant
		got := strings.Join(tc.def.args(tc.mirror, tc.keyring), "|")
		if diff := cmp.Diff("--mode=unshare|--format=tar|--variant=minbase|"+tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestParseDefinition(t *testing.T) {
	digest := strings.Repeat("0", 64)
	for _, tc := range []struct{ name, text, fault, hint string }{
		{"empty", "", "", ""},
		{"all keys", "description='x'\nfrom='ubuntu:noble'\nvariant='apt'\ncomponents=['main']\npackages=['g++', 'git=1:2.39.5-0+deb12u2']\nboot='system'\n" +
			"mirror='http://localhost:80/debian'\ntime=2024-01-01T00:00:00Z\nremove=['/etc/x']\n" +
			"[[file]]\npath='/etc/a'\ncontent=''\n[[file]]\npath='/etc/b'\nlink='a'\n[[file]]\npath='/etc/c'\nmode=0o755\nurl='https://x.example/y'\nsize=1\nsha256='" + digest + "'\nmember='a/b'\noptional=true\n", "", ""},
		{"no TOML", "=", "line 1", ""},
		{"unknown key", "\npakages=['x']", `line 2: unknown key "pakages"`, "packages"},
		{"unknown key of a file", "[[file]]\npaht='/x'", `unknown key "file.paht"`, "file.path"},
		{"wrong type", "packages='x'", "packages", ""},
		{"no distribution", "from='bookworm'", "suite", ""},
		{"unknown distribution", "from='debain:bookworm'", "distribution", "debian:bookworm"},
		{"suite that is an option", "from='debian:--hook'", "suite", ""},
		{"suite with a space", "from='debian:a b'", "suite", ""},
		{"variant", "variant='custom'", "variant", ""},
		{"component", "components=['main -x']", "component", ""},
		{"package that is an option", "packages=['--hook=x']", "package", ""},
		{"package that is a pattern", "packages=['?essential']", "package", ""},
		{"package that is a file", "packages=['./x.deb']", "package", ""},
		{"package to remove", "packages=['apt-']", "package", ""},
		{"package with a comma", "packages=['a,b']", "package", ""},
		{"boot", "boot='agnet'", "boot", ""},
		{"mirror that is a source", "mirror='deb [trusted=yes] http://x y z'", "mirror", ""},
		{"mirror with a space", "mirror='http://x y'", "mirror", ""},
		{"mirror with a password", "mirror='http://u:secret@x/debian'", "password", ""},
		{"description with a control character", "description=\"a\\u001b\"", "description", ""},
		{"time", "time=2500-01-01T00:00:00Z", "time", ""},
		{"remove", "remove=['etc/x']", "remove", ""},
		{"remove all", "remove=['/']", "remove", ""},
		{"file path", "[[file]]\npath='/a/../b'\ncontent=''", "path", ""},
		{"file without content", "[[file]]\npath='/a'", "one of content, link and url", ""},
		{"file with two contents", "[[file]]\npath='/a'\ncontent='x'\nlink='y'", "one of content, link and url", ""},
		{"file mode", "[[file]]\npath='/a'\ncontent='x'\nmode=0o100000", "mode", ""},
		{"file digest alone", "[[file]]\npath='/a'\ncontent='x'\nsha256='" + digest + "'", "go with url", ""},
		{"url without digest", "[[file]]\npath='/a'\nurl='https://x.example/y'\nsize=1", "sha256", ""},
		{"url without size", "[[file]]\npath='/a'\nurl='https://x.example/y'\nsha256='" + digest + "'", "size", ""},
		{"url in the clear", "[[file]]\npath='/a'\nurl='http://x.example/y'\nsize=1\nsha256='" + digest + "'", "https", ""},
		{"url of a file", "[[file]]\npath='/a'\nurl='file:///etc/shadow'\nsize=1\nsha256='" + digest + "'", "URL", ""},
		{"member outside", "[[file]]\npath='/a'\nurl='https://x.example/y'\nsize=1\nmember='../x'\nsha256='" + digest + "'", "member", ""},
		{"too long", strings.Repeat("#", maxDefinition+1), "bytes", ""},
		{"too many packages", "packages=[" + strings.Repeat("'aa',", maxPackages+1) + "]", "more than", ""},
	} {
		_, err := parseDefinition("mine", tc.text)
		if tc.fault == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), tc.fault) || !strings.Contains(banger.HintOf(err), tc.hint) {
			t.Errorf("%s: %v (hint %q), want %q (hint %q)", tc.name, err, banger.HintOf(err), tc.fault, tc.hint)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", tc.name, err)
		}
	}
}

// Whatever a definition says, mmdebstrap gets the options that banger means, and then three or more words that are none.
func FuzzParseDefinition(f *testing.F) {
	for _, text := range []string{"", "from='ubuntu:noble'", "packages=['a1','b2']\nmirror='http://x/y'", "components=['main','x']\nvariant='apt'", "[[file]]\npath='/x'\nlink='y'"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDefinition("x", text)
		if err != nil {
			return
		}
		rest := false
		for _, arg := range d.args("", "") {
			option, _, _ := strings.Cut(arg, "=")
			switch option {
			case "--mode", "--format", "--variant", "--components", "--include":
				if rest {
					t.Errorf("option %q after the suite", arg)
				}
				continue
			}
			if rest = true; strings.HasPrefix(arg, "-") && arg != "-" || strings.ContainsAny(arg, "\n\r\x00") {
				t.Errorf("%q becomes the argument %q", text, arg)
			}
		}
	})
}

func TestDefine(t *testing.T) {
	for _, tc := range []struct {
		name string
		req  api.BuildRequest
		err  error
		want definition
	}{
		{"own", api.BuildRequest{Name: name}, nil, definition{From: "debian:bookworm", Packages: []string{"git", "ca-certificates"}, Boot: "agent"}},
		{"own with packages", api.BuildRequest{Name: name, Packages: []string{"jq"}}, banger.ErrConflict, definition{}},
		{"own with a definition", api.BuildRequest{Name: name, Definition: "packages=[]"}, banger.ErrConflict, definition{}},
		{"unknown alone", api.BuildRequest{Name: "mine"}, banger.ErrNotFound, definition{}},
		{"bad name", api.BuildRequest{Name: "../x", From: "debian:bookworm"}, banger.ErrInvalid, definition{}},
		{"from", api.BuildRequest{Name: "mine", From: "debian:trixie"}, nil, definition{From: "debian:trixie"}},
		{"packages", api.BuildRequest{Name: "mine", Packages: []string{"jq"}}, nil, definition{From: "debian:bookworm", Packages: []string{"jq"}}},
		{"bad package", api.BuildRequest{Name: "mine", Packages: []string{"--x"}}, banger.ErrInvalid, definition{}},
		{"bad suite", api.BuildRequest{Name: "mine", From: "debian:"}, banger.ErrInvalid, definition{}},
		{"from its own", api.BuildRequest{Name: "mine", From: name, Packages: []string{"jq"}}, nil, definition{From: "debian:bookworm", Packages: []string{"git", "ca-certificates", "jq"}, Boot: "agent"}},
		{"definition, more", api.BuildRequest{Name: "mine", Definition: "packages=['a1']\nboot='agent'", From: "debian:trixie", Packages: []string{"b2"}, Boot: "system"}, nil,
			definition{From: "debian:trixie", Packages: []string{"a1", "b2"}, Boot: "system"}},
		{"bad definition", api.BuildRequest{Name: "mine", Definition: "x=1"}, banger.ErrInvalid, definition{}},
	} {
		got, err := define(tc.req)
		if !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
		}
		got = definition{From: got.From, Packages: got.Packages, Boot: got.Boot}
		if diff := cmp.Diff(tc.want, got); tc.err == nil && diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// What a definition adds, replaces and removes is in the image, and nothing of the fetching is left.
func TestBuildWithFiles(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if err := tree.WriteTar(w, tree.Of(tree.Literal("package/readme", 0o600, []byte("no")), tree.Literal("package/bin/tool", 0o600, []byte("#!/bin/tool\n")))); err != nil {
		t.Fatal(err)
	}
	w.Close()
	server := httptest.NewServer(http.FileServer(http.Dir(t.TempDir())))
	t.Cleanup(server.Close)
	server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/tool.tgz" {
			http.NotFound(rw, r)
			return
		}
		rw.Write(packed.Bytes())
	})
	sum := sha256.Sum256(packed.Bytes())
	fetched := func(path, file, digest, more string) string {
		return fmt.Sprintf("[[file]]\npath='%s'\nurl='%s/%s'\nsize=%d\nsha256='%s'\nmember='package/bin/tool'\nmode=0o755\n%s\n", path, server.URL, file, packed.Len(), digest, more)
	}
	digest := hex.EncodeToString(sum[:])
	m := newManager(t, "cat "+rootTar(t))
	build := func(definition string) (banger.Image, error) {
		return m.Build(t.Context(), api.BuildRequest{Name: "mine", Definition: definition, Kernel: "k"}, nil)
	}
	image, err := build("remove=['/root', '/nosuch']\n[[file]]\npath='/etc/debian_version'\ncontent='new'\nmode=0o600\n[[file]]\npath='/etc/link'\nlink='x'\n" +
		fetched("/usr/bin/tool", "tool.tgz", digest, "") + fetched("/usr/bin/other", "nosuch", digest, "optional=true"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/usr/bin/other"}, image.Missing); diff != "" || image.Kernel != "k" || image.Boot != banger.BootAgent || image.Source != "packages debian:bookworm" {
		t.Errorf("image %+v, missing: %s", image, diff)
	}
	dir := m.Dir.Image(image.Key)
	if left, err := filepath.Glob(dir.Path + "/*"); err != nil || len(left) != 3 {
		t.Errorf("published: %q, %v", left, err)
	}
	for command, want := range map[string]string{"cat /etc/debian_version": "new", "cat /usr/bin/tool": "#!/bin/tool\n", "stat /usr/bin/tool": "Mode:  0755", "stat /etc/link": `"x"`,
		"stat /etc/debian_version": "Mode:  0600", "stat /root": "", "stat /usr/bin/other": ""} {
		out, err := exec.Command("debugfs", "-R", command, dir.Rootfs()).Output()
		if err != nil {
			t.Skipf("needs debugfs: %v", err)
		}
		if !strings.Contains(string(out), want) || want == "" && len(out) > 0 {
			t.Errorf("%s: %q, want %q", command, out, want)
		}
	}
	same, err := build("remove=['/root', '/nosuch']\n")
	if err != nil || same.Key == image.Key {
		t.Errorf("without the files: key %s, %v, want another", same.Key, err)
	}
	before, _ := os.ReadDir(m.Dir.Images())
	for _, tc := range []struct {
		name, definition string
		kind             error
	}{
		{"not there", fetched("/x", "nosuch", digest, ""), banger.ErrNotFound},
		{"another digest, though optional", fetched("/x", "tool.tgz", strings.Repeat("0", 64), "optional=true"), banger.ErrCorrupt},
		{"no such member", strings.Replace(fetched("/x", "tool.tgz", digest, ""), "bin/tool'", "bin/nosuch'", 1), banger.ErrInvalid},
		{"below a file", "[[file]]\npath='/etc/debian_version/x'\ncontent=''\n", banger.ErrInvalid},
	} {
		if _, err := build(tc.definition); !errors.Is(err, tc.kind) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.kind)
		}
		if after, _ := os.ReadDir(m.Dir.Images()); len(after) != len(before) {
			t.Errorf("%s: %d entries in images, want %d", tc.name, len(after), len(before))
		}
		wantNoScratch(t, m)
	}
}
