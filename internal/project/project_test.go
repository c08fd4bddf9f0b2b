package project

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger"
)

// write makes a repository of files.
func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func load(t *testing.T, root string) *Project {
	t.Helper()
	p, err := Load(root, Options{Home: "/home/me"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const wholeDevcontainer = `// made by an editor
{
	"name": "app", /* shown in a title */
	"image": "mcr.microsoft.com/devcontainers/go:1",
	"build": { "dockerfile": "Dockerfile" },
	"features": {},
	"initializeCommand": "touch /tmp/pwned",
	"containerEnv": { "A": "1", "B": "${localWorkspaceFolderBasename}", "PATH": "/x:${containerEnv:PATH}" },
	"remoteEnv": { "A": "2", "C": "${containerEnv:B}-${localEnv:TOKEN:none}", "GONE": null },
	"forwardPorts": [3000, "localhost:8080", "db:5432", 3000,],
	"workspaceFolder": "/workspaces/${localWorkspaceFolderBasename}",
	"remoteUser": "vscode", "containerUser": "root",
	"postStartCommand": ["service", "start"],
	"onCreateCommand": { "z": "echo z", "a": ["echo", "a b"] },
	"postCreateCommand": "make ${containerWorkspaceFolder}",
	"updateContentCommand": "",
	"hostRequirements": { "cpus": 3, "memory": "4gb", "storage": "32gb", "gpu": true },
	"mounts": [
		"source=cache,target=/var/cache/app,type=volume",
		{ "type": "bind", "source": "${localEnv:HOME}/.gitconfig", "target": "/root/.gitconfig" },
		"type=tmpfs,target=/scratch",
	],
	"runArg": [], // not a property
}
// the end`

func TestDevcontainer(t *testing.T) {
	const name = ".devcontainer/devcontainer.json"
	got, notices, err := parseDevcontainer(name, []byte("\ufeff"+wholeDevcontainer))
	if err != nil {
		t.Fatal(err)
	}
	port := func(n uint16) Forward {
		return Forward{banger.Publish{Host: netip.AddrPortFrom(loopback, n), Guest: n}, true}
	}
	want := Settings{
		Image: "mcr.microsoft.com/devcontainers/go:1", Registry: true, VCPU: Size{3, true}, Memory: Size{4 << 30, true}, Disk: Size{32 << 30, true},
		Ports: []Forward{port(3000), port(8080)}, User: "vscode", Folder: "/workspaces/${localWorkspaceFolderBasename}",
		Env:     map[string]string{"A": "2", "B": "${localWorkspaceFolderBasename}", "C": "${containerEnv:B}-${localEnv:TOKEN:none}", "PATH": "/x:${containerEnv:PATH}"},
		Volumes: []string{"/var/cache/app"}, Copies: []banger.FileSync{{Host: "${localEnv:HOME}/.gitconfig", Guest: "/root/.gitconfig"}},
		Create: []Command{{Name: "onCreateCommand.z", Line: "echo z"}, {Name: "onCreateCommand.a", Argv: []string{"echo", "a b"}},
			{Name: "postCreateCommand", Line: "make ${containerWorkspaceFolder}"}},
		Start: []Command{{Name: "postStartCommand", Argv: []string{"service", "start"}}},
	}
	if diff := gocmp.Diff(want, got, cmpopts.IgnoreFields(Settings{}, "From"), gocmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	for _, key := range []string{KeyImage, KeyVCPU, KeyMemory, KeyDisk, KeyPorts, KeyUser, KeyFolder, KeyVolumes, KeyCopies, KeyCreate, KeyStart, "env.A", "env.PATH"} {
		if got.From[key] != name {
			t.Errorf("%s is from %q", key, got.From[key])
		}
	}
	told := strings.Join(notices, "\n")
	for _, want := range []string{"build: no image is built", "features: they are not installed", "initializeCommand: it never runs", `"db:5432": only ports`, "remoteEnv.GONE",
		"gpu: VMs have none", "nothing of this computer is mounted", `no "tmpfs" for /scratch`, `"runArg" is not known and does nothing`} {
		if strings.Count(told, want) != 1 {
			t.Errorf("told %d times, want once: %s\n%s", strings.Count(told, want), want, told)
		}
	}
	if strings.Contains(told, "pwned") || len(notices) != 9 {
		t.Errorf("%d notices:\n%s", len(notices), told)
	}
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct{ name, file, text, want, hint string }{
		{"no JSON", "d", "{", "line 2", ""},
		{"no object", "d", "[]", "want an object", ""},
		{"kind", "d", "{\n\"image\": 3}", "d:2: image: it is a JSON number, want a text", ""},
		{"twice", "d", "{\"image\": \"a\",\n\"image\": \"b\"}", `d:2: "image" is there twice`, ""},
		{"port", "d", `{"forwardPorts": [0]}`, "want 1 to 65535", ""},
		{"fraction of a port", "d", `{"forwardPorts": [80.5]}`, "want 1 to 65535", ""},
		{"variable", "d", `{"containerEnv": {"A B": "x"}}`, "a name has letters", ""},
		{"command", "d", `{"onCreateCommand": {"a": {"b": "c"}}}`, "want a text or a list", ""},
		{"program", "d", `{"onCreateCommand": [""]}`, "program is empty", ""},
		{"processors", "d", `{"hostRequirements": {"cpus": 999}}`, "cpus 999", ""},
		{"memory", "d", `{"hostRequirements": {"memory": "lots"}}`, "memory", ""},
		{"NUL", "d", `{"postCreateCommand": "a\u0000b"}`, "NUL", ""},
		{"mount", "d", `{"mounts": ["type=volume,source=x"]}`, "no target", ""},
		{"unknown key", "t", "vcpus = 2\n", `t:1: unknown key "vcpus"`, "did you mean vcpu?"},
		{"unknown key below", "t", "[commands]\non_create = [\"x\"]\n", `t:2: unknown key "commands.on_create"`, "commands.create"},
		{"kind in TOML", "t", "\nvcpu = \"2\"\n", "t:2", ""},
		{"policy", "t", "net = \"everything\"\n", "network policy", ""},
		{"size", "t", "memory = \"1K\"\n", "memory 0 MiB", ""},
		{"port in TOML", "t", "ports = [\"x\"]\n", "ports:", ""},
		{"host port", "t", "allow_host = [0]\n", "allow_host", ""},
		{"empty command", "t", "[commands]\nstart = [\"\"]\n", "commands.start[0]", ""},
		{"sync", "t", "[[sync]]\nhosts = \"~/x\"\n", `unknown key "sync.hosts"`, "sync.host"},
	} {
		parse := map[string]parser{"d": parseDevcontainer, "t": parseTOML}[test.file]
		_, _, err := parse(test.file, []byte(test.text))
		if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), test.want) || banger.HintOf(err) == "" || !strings.Contains(banger.HintOf(err), test.hint) {
			t.Errorf("%s: %v (hint %q), want %q", test.name, err, banger.HintOf(err), test.want)
		}
	}
}

// .banger.toml stands above devcontainer.json, variable by variable and key by key.
func TestPrecedence(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{
		".devcontainer.json": `{"image": "b", "remoteUser": "dev", "containerEnv": {"A": "json", "B": "json"}, "onCreateCommand": "json", "postStartCommand": "json", "hostRequirements": {"cpus": 2}}`,
		".banger.toml":       "image = \"a\"\nvcpu = 1\n[env]\nA = \"toml\"\n[commands]\ncreate = [\"toml\"]\n",
	})
	s := load(t, root).Settings
	if s.Image != "a" || s.Registry || s.ImageRef() != "a" || s.User != "dev" || s.VCPU != (Size{N: 1}) || s.Env["A"] != "toml" || s.Env["B"] != "json" || s.Create[0].Line != "toml" || s.Start[0].Line != "json" {
		t.Errorf("merged: %+v", s)
	}
	if s.From[KeyImage] != TOMLFile || s.From["env.B"] != ".devcontainer.json" || s.From[KeyStart] != ".devcontainer.json" {
		t.Errorf("from: %v", s.From)
	}
	without := s.Without(KeyImage, "env.A", KeyVCPU)
	if without.Image != "" || without.Env["A"] != "" || without.From["env.A"] != "" || s.Env["A"] != "toml" {
		t.Errorf("without: %+v, and before: %+v", without, s)
	}
	if (Size{N: 2, AtLeast: true}).Of(4) != 0 || (Size{N: 8, AtLeast: true}).Of(4) != 8 || (Size{N: 2}).Of(4) != 2 {
		t.Error("sizes")
	}
	if p, err := Load(root, Options{NoDevcontainer: true}); err != nil || len(p.Files) != 1 || p.Settings.User != "" {
		t.Errorf("NoDevcontainer: %+v, %v", p, err)
	}
}

func TestWhichDevcontainer(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{".devcontainer/go/devcontainer.json": `{"image": "go:1"}`, ".devcontainer/node/devcontainer.json": `{"image": "node:1"}`, ".devcontainer/empty/x": ""})
	if p := load(t, root); len(p.Files) != 0 || len(p.Notices) != 1 || !strings.Contains(p.Notices[0], "--devcontainer go, --devcontainer node") {
		t.Errorf("only variants: %+v", p)
	}
	if p, err := Load(root, Options{Variant: "node"}); err != nil || p.Settings.Image != "node:1" {
		t.Errorf("variant: %+v, %v", p, err)
	}
	if _, err := Load(root, Options{Variant: "nod"}); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "node") {
		t.Errorf("missing variant: %v", err)
	}
	for _, bad := range []string{"..", "../x", "/etc"} {
		if _, err := Load(root, Options{Variant: bad}); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("variant %q: %v", bad, err)
		}
	}
	write(t, root, map[string]string{".devcontainer.json": `{"image": "root:1"}`})
	if p := load(t, root); p.Settings.Image != "root:1" {
		t.Errorf("at the root: %+v", p.Settings)
	}
	write(t, root, map[string]string{".devcontainer/devcontainer.json": `{"image": "dir:1"}`})
	if p := load(t, root); p.Settings.Image != "dir:1" || p.Files[0].Name != ".devcontainer/devcontainer.json" {
		t.Errorf("in the directory: %+v", p)
	}
}

// Neither a link nor a device makes banger read what is not the repository's.
func TestOnlyFilesOfItsOwn(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("image = \"secret\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(file string) error{
		"link":           func(file string) error { return os.Symlink(outside, file) },
		"link to itself": func(file string) error { return os.Symlink(filepath.Base(file), file) },
		"FIFO":           func(file string) error { return syscall.Mkfifo(file, 0o600) },
		"directory":      func(file string) error { return os.Mkdir(file, 0o700) },
	} {
		root := t.TempDir()
		if err := make(filepath.Join(root, TOMLFile)); err != nil {
			t.Fatal(err)
		}
		if p, err := Load(root, Options{}); !errors.Is(err, banger.ErrRefused) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	root, other := t.TempDir(), t.TempDir()
	write(t, other, map[string]string{"devcontainer.json": `{"image": "secret:1"}`})
	if err := os.Symlink(other, filepath.Join(root, ".devcontainer")); err != nil {
		t.Fatal(err)
	}
	if p, err := Load(root, Options{}); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("a link to a directory: %+v, %v", p, err)
	}
	large := t.TempDir()
	write(t, large, map[string]string{TOMLFile: strings.Repeat("#", maxFile+1)})
	if _, err := Load(large, Options{}); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("a large file: %v", err)
	}
}

func TestResolve(t *testing.T) {
	s, _, err := parseDevcontainer("d", []byte(wholeDevcontainer))
	if err != nil {
		t.Fatal(err)
	}
	v := Values{Root: "/home/me/app", Folder: "/work/app", LocalEnv: func(name string) (string, bool) { return "${localEnv:HOME}", name == "TOKEN" },
		ContainerEnv: func(name string) (string, error) { return "/image/" + name, nil }}
	got, err := s.Resolve(v)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "2", "B": "app", "C": "app-${localEnv:HOME}", "PATH": "/x:/image/PATH"} // what a value says is not looked at again
	if diff := gocmp.Diff(want, got.Env); diff != "" || got.Folder != "/workspaces/app" || got.Create[2].Line != "make /work/app" {
		t.Errorf("resolved %+v:\n%s", got, diff)
	}
	if s.Env["B"] != "${localWorkspaceFolderBasename}" || s.Create[2].Line != "make ${containerWorkspaceFolder}" {
		t.Error("Resolve changed what it was given")
	}
	v.LocalEnv, v.ContainerEnv = nil, nil
	if got, err := s.Resolve(v); err != nil || got.Env["C"] != "app-${localEnv:TOKEN:none}" || got.Env["PATH"] != s.Env["PATH"] {
		t.Errorf("for show: %+v, %v", got.Env, err)
	}
	v.LocalEnv = func(string) (string, bool) { return "", false }
	if got, err := s.Resolve(v); err != nil || got.Env["C"] != "app-none" {
		t.Errorf("default: %+v, %v", got.Env, err)
	}
	failing := errors.New("no image")
	v.ContainerEnv = func(string) (string, error) { return "", failing }
	if _, err := s.Resolve(v); !errors.Is(err, failing) {
		t.Errorf("without the image: %v", err)
	}
	v.LocalEnv = func(string) (string, bool) { return "a\x00b", true }
	v.ContainerEnv = nil
	if _, err := s.Resolve(v); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("a NUL byte: %v", err)
	}
	for text, want := range map[string]string{"${x}": "${x}", "${a:${localWorkspaceFolder}}": "${a:/r}", "${": "${", "a${localWorkspaceFolder}b${FOO:-1}": "a/rb${FOO:-1}", "$${localWorkspaceFolder}": "$/r"} {
		if got := replace(text, Values{Root: "/r"}.replace); got != want {
			t.Errorf("replace(%q) = %q, want %q", text, got, want)
		}
	}
}

// values gives the kinds and values of needs.
func values(needs []Need) (list []string) {
	for _, n := range needs {
		list = append(list, n.Kind+" "+n.Value)
	}
	return list
}

// testHost has the defaults of a small computer.
func testHost() Host {
	return Host{Net: banger.NetFull, Image: "debian-bookworm", VCPU: 4, Memory: 8 << 30, Disk: 64 << 30,
		SignedIn: func(registry string) bool { return registry == "ghcr.io" }}
}

func TestNeeds(t *testing.T) {
	policy := func(text string) banger.NetPolicy {
		p, err := banger.ParseNetPolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, test := range []struct {
		name, file, text string
		net              string
		want             []string
	}{
		{"nothing", "t", "", "full", nil},
		{"harmless", "t", "image = \"debian-bookworm\"\nvcpu = 4\nmemory = \"8G\"\nnet = \"none\"\nports = [\"8080:80\"]\n[commands]\ncreate = [\"rm -rf /\"]", "full", nil},
		{"names under full", "t", `net = "allow=github.com,*.pypi.org"`, "full", nil},
		{"beyond full", "t", `net = "full,allow=10.0.0.0/8,vm:db,host:80"`, "full", []string{"network 10.0.0.0/8", "network vm:db", "network host:80"}},
		{"more than an allow list", "t", `net = "full"`, "allow=github.com", []string{"network the whole internet"}},
		{"another name than the list has", "t", `net = "allow=github.com,evil.example"`, "allow=github.com", []string{"network evil.example"}},
		{"less than the list", "t", `net = "none"`, "allow=github.com", nil},
		{"what the list has", "t", `net = "allow=10.0.0.0/8"`, "allow=10.0.0.0/8,github.com", nil},
		{"ports of the host", "t", "allow_host = [5432]", "full", []string{"host port host:5432"}},
		{"ports of the host by default", "t", "allow_host = [5432]", "full,allow=host:5432", nil},
		{"ports here", "t", `ports = ["80", "0.0.0.0:8080:80", "[::1]:8081:80"]`, "full", []string{"port 127.0.0.1:80", "port 0.0.0.0:8080", "port [::1]:8081"}},
		{"a low port forwarded", "d", `{"forwardPorts": [22]}`, "full", []string{"port 127.0.0.1:22"}},
		{"sizes", "d", `{"hostRequirements": {"cpus": 5, "memory": "9gb", "storage": "65gb"}}`, "full", []string{"size 5 processors", "size memory 9 GiB", "size disk 65 GiB"}},
		{"environment", "d", `{"containerEnv": {"A": "${localEnv:TOKEN}${localEnv:TOKEN:x}"}, "postCreateCommand": "echo ${env:OTHER}"}`, "full", []string{"environment TOKEN", "environment OTHER"}},
		{"environment anywhere", "d", `{"image": "x/${localEnv:A}", "remoteUser": "${localEnv:B}", "workspaceFolder": "/w/${localEnv:C}", "mounts": ["type=volume,target=/v/${localEnv:D}"]}`, "full",
			[]string{"image x/${localEnv:A}", "environment A", "environment B", "environment C", "environment D"}},
		{"nested", "d", `{"containerEnv": {"A": "${x:${localEnv:TOKEN}}"}}`, "full", []string{"environment TOKEN"}},
		{"its path", "d", `{"containerEnv": {"A": "${localWorkspaceFolder}", "B": "${localWorkspaceFolderBasename}"}}`, "full", []string{"path /repo"}},
		{"images for everybody", "d", `{"image": "ubuntu"}`, "full", nil},
		{"public registry", "d", `{"image": "mcr.microsoft.com/devcontainers/base:1"}`, "full", nil},
		{"signed in", "d", `{"image": "ghcr.io/corp/secret:1"}`, "full", []string{"image ghcr.io/corp/secret:1"}},
		{"registry of its own", "d", `{"image": "127.0.0.1:5000/x:1"}`, "full", []string{"image 127.0.0.1:5000/x:1"}},
		{"registry by name", "d", `{"image": "registry.example/x"}`, "full", []string{"image registry.example/x"}},
		{"image of the user", "t", `image = "devbox-with-keys"`, "full", []string{"image devbox-with-keys"}},
	} {
		parse := map[string]parser{"d": parseDevcontainer, "t": parseTOML}[test.file]
		s, _, err := parse("f", []byte(test.text))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		host := testHost()
		host.Net = policy(test.net)
		needs := s.Needs("/repo", host)
		if got := values(needs); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		for _, n := range needs {
			if n.File != "f" || !strings.HasSuffix(n.String(), n.Value) || words[n.Kind] == "" {
				t.Errorf("%s: %+v says %q", test.name, n, n)
			}
		}
	}
	if got := Network(policy("full,allow=10.0.0.0/8"), policy("deny=evil.example")).String(); got != "full,allow=10.0.0.0/8,deny=evil.example" {
		t.Errorf("what the user denies: %s", got)
	}
}

// What is copied is in the user's home, and is asked about by where it really lies.
func TestCopies(t *testing.T) {
	home, outside := t.TempDir(), t.TempDir()
	write(t, home, map[string]string{".ssh/id": "key", "real/x": ""})
	write(t, outside, map[string]string{"x": ""})
	link := filepath.Join(t.TempDir(), "home")
	if err := errors.Join(os.Symlink(filepath.Join(home, ".ssh"), filepath.Join(home, "harmless")), os.Symlink(outside, filepath.Join(home, "out")), os.Symlink(home, link)); err != nil {
		t.Fatal(err)
	}
	read := func(name, text string) (*Project, error) {
		root := t.TempDir()
		write(t, root, map[string]string{name: text})
		return Load(root, Options{Home: link})
	}
	p, err := read(".devcontainer.json", `{"remoteUser": "dev", "mounts": [
		"type=bind,source=${localEnv:HOME}/harmless/id,target=/home/dev/.ssh/id", "type=bind,source=`+link+`/real,target=/root/real", "type=bind,source=${localEnv:HOME}/later,target=/root/later",
		"type=bind,source=${localEnv:HOME}/real,target=/etc/x", "type=bind,source=/etc,target=/root/etc", "type=bind,source=${localEnv:OTHER}/x,target=/root/x",
		"type=bind,source=${localEnv:HOME}/out,target=/root/out", "type=bind,source=/var/run/docker.sock,target=/var/run/docker.sock"]}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []banger.FileSync{{Host: "~/.ssh/id", Guest: "~/.ssh/id"}, {Host: "~/real", Guest: "/root/real"}, {Host: "~/later", Guest: "/root/later"}}
	if diff := gocmp.Diff(want, p.Settings.Copies); diff != "" {
		t.Errorf("copies (-want +got):\n%s", diff)
	}
	if got := values(p.Settings.Needs(p.Root, testHost())); !slices.Equal(got, []string{"copy ~/.ssh/id → ~/.ssh/id", "copy ~/real → /root/real", "copy ~/later → /root/later"}) {
		t.Errorf("needs: %q", got)
	}
	if p, err := read(TOMLFile, "[[sync]]\nhost = \"~/real\"\nmode = \"9\"\n"); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "mode") {
		t.Errorf("a bad mode: %+v, %v", p, err)
	}
	repo := filepath.Join(home, "repo")
	write(t, repo, map[string]string{TOMLFile: "[[sync]]\nhost = \"~/repo/config\"\n"})
	if p, err := Load(repo, Options{Home: link}); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "goes in itself") {
		t.Errorf("a path in the repository: %+v, %v", p, err)
	}
	told := strings.Join(p.Notices, "\n")
	for _, want := range []string{"${localEnv:HOME}/real is not copied: ", "/etc is not copied: ", "${localEnv:OTHER}/x is not copied: ", "out is not copied: ", "docker.sock: a socket"} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is not told:\n%s", want, told)
		}
	}
	for _, bad := range []string{"~/../x", "/etc/passwd", "relative", "~/out", "${localEnv:OTHER}/x", ""} {
		if p, err := read(TOMLFile, "[[sync]]\nhost = \""+bad+"\"\n"); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("sync %q: %+v, %v", bad, p, err)
		}
	}
}

func TestSignedIn(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"docker/config.json": `{"auths": {"https://index.docker.io/v1/": {}, "quay.io/org": {}}, "credHelpers": {"gcr.io": "gcloud"}}`,
		"auth.json": `{"auths": {"GHCR.io": {}}}`, "store/config.json": `{"credsStore": "desktop"}`, "bad/config.json": "{"})
	env := func(m map[string]string) func(string) string { return func(name string) string { return m[name] } }
	both := env(map[string]string{"DOCKER_CONFIG": dir + "/docker", "REGISTRY_AUTH_FILE": dir + "/auth.json"})
	for registry, want := range map[string]bool{"docker.io": true, "index.docker.io": true, "quay.io": true, "gcr.io": true, "ghcr.io": true, "mcr.microsoft.com": false} {
		if got := SignedIn(registry, "/nowhere", both); got != want {
			t.Errorf("SignedIn(%s) = %v, want %v", registry, got, want)
		}
	}
	if SignedIn("docker.io", "/nowhere", env(nil)) || !SignedIn("x", dir, env(map[string]string{"DOCKER_CONFIG": dir + "/store"})) || !SignedIn("x", dir, env(map[string]string{"DOCKER_CONFIG": dir + "/bad"})) {
		t.Error("no file, a store, a damaged file")
	}
}
