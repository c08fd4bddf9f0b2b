package smoke

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger/internal/testenv"
	"banger/internal/testenv/shown"
	"banger/internal/tree"
)

// notRun are the statements of the documents that TestDocuments does not run, each for its reason. One that no document shows
// fails the test.
var notRun = map[string]string{
	"banger vm net devbox check https://github.com":                         "asks for a name of the internet: TestNetworkPolicies checks names of a test's own",
	"git for-each-ref refs/banger":                                          "docs/recovery.md has it with a repository",
	"git merge refs/banger/devbox/0123456789ab/20261128T182914.000Z/head":   "a ref of somebody else's; docs/recovery.md uses one",
	"banger image build debian-bookworm-slim":                               "each run of these tests begins with it",
	"banger image build mine --file image.toml":                             "TestBuildWithFiles",
	"banger allow ./repo":                                                   "asks a person: TestConsentOnATerminal",
	"banger kernel import cloud --deb linux-image-6.1.0-42-cloud-amd64.deb": "TestImportedKernelBoots does this with the package that there is",
	"banger kernel import mine --from ~/src/linux":                          "TestImportedKernelBoots does this with the tree of a package",
	"banger kernel import host --host":                                      "the kernel of the host is root's to read in many places: TestImportHost",
	"go test ./internal/lifecycle -run TestModel":                           "a test of its own",
	"BANGER_TIER=smoke go test ./test/smoke -run TestPowerCut -v":           "a test of its own",
	"banger vm run --image debian-bookworm --rm -- docker run hello-world":  "the internet; TestDefaultImage runs Docker in it",

	// TestInstall and TestDist of test/dist do what these do.
	"sha256sum --check --ignore-missing SHA256SUMS":                                      "changes the computer",
	"sudo apt install ./banger_*_amd64.deb":                                              "changes the computer",
	"sudo tar -xzf banger-VERSION-linux-amd64.tar.gz -C /usr/local --strip-components=1": "changes the computer",
}

// untilInterrupted go on until Ctrl-C, which comes after some seconds.
var untilInterrupted = []string{
	"banger workspace watch fix",
	"banger vm net devbox log --follow --denied",
}

// harmless is a statement that may end with 1 here: the image is one file with a link for each test, and tar takes a new link for a change.
const harmless = "tar -C ~/.local/state/banger -c --sparse . > state.tar"

// withMake makes images with make the default: the small one that tests have does not have it.
const withMake = `banger image build made --from debian-bookworm-slim --packages make
		sed -i s/debian-bookworm-slim/made/ "$BANGER_CONFIG"
		banger daemon stop`

// before is run ahead of a document's commands: what they take for granted.
var before = map[string]string{
	"docs/files.md": `banger vm run --name devbox -- mkdir -p /etc/app /srv/www
		banger vm run --name one -- sh -c 'mkdir -p /srv/one && echo 1 >/srv/one/file'
		banger vm run --name two -- true
		mkdir -p config site; echo x >config/x; echo y >site/index.html`,
	"docs/network.md": `banger vm run --name devbox -- true`,
	"docs/disk.md":    `mkdir -p tree; hostname >tree/hostname`,
	"docs/faq.md":     `banger vm run --name devbox ./repo -- true`,
	"docs/recovery.md": `banger vm run --name devbox ./repo -- sh -c 'echo more >>README; echo keep >/root/precious'
		banger vm run --rm ./repo -- sh -c 'echo kept >>README; git commit -qam kept; echo changed >>Makefile'`,
	"docs/images.md": `banger image export debian-bookworm-slim rootfs.tar.xz.tar && xz -0 -T0 <rootfs.tar.xz.tar >rootfs.tar.xz; rm rootfs.tar.xz.tar
		mkdir -p tree/root && banger disk create disk.ext4 --size 64M --from-dir tree`,
	"docs/catalog.md": `docker save tools | banger image import - --name tools
		public=$(banger catalog keygen other.pem)
		banger image publish tools --to ~/published --key other.pem
		banger kernel publish debian-cloud --to ~/published --key other.pem
		banger daemon stop
		printf '[catalog]\nurl = "%s"\nkeys = ["%s"]\n' ~/published "$public" >>"$BANGER_CONFIG"
		banger image delete tools`,
	"docs/project-files.md": `printf 'ports = ["127.0.0.1:80:80"]\n' >repo/.banger.toml
		banger allow --accept "$(banger allow --json ./repo | sed -n 's/.*"digest": "\(.*\)".*/\1/p')" ./repo`,
	"README.md":      withMake,
	"docs/agents.md": withMake,
	"docs/json.md":   `banger vm run --name devbox --label team=blue -- true`,
	"docs/api.md":    `banger ps`,
}

// Every command that a document shows runs, with real guests, as an ordinary user, or says in notRun why it does not. What has to be
// there (a repository, programs that are not banger's, images of registries) the test makes.
func TestDocuments(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	documents, err := shown.Documents(root)
	if err != nil {
		t.Fatal(err)
	}
	host := smallRegistry(t)
	unused := map[string]bool{}
	for text := range notRun {
		unused[text] = true
	}
	for _, document := range documents {
		list, err := shown.In(filepath.Join(root, document))
		if err != nil {
			t.Error(err)
			continue
		}
		if len(list) == 0 {
			continue
		}
		for _, s := range list {
			delete(unused, s.Text)
		}
		t.Run(strings.TrimSuffix(filepath.Base(document), ".md"), func(t *testing.T) {
			t.Parallel()
			runDocument(t, root, document, list, host)
		})
	}
	for text := range unused {
		t.Errorf("notRun has %q, which no document shows", text)
	}
}

// runDocument runs the statements of a document in their order, each in a shell.
func runDocument(t *testing.T, root, document string, list []shown.Statement, registry string) {
	names := strings.NewReplacer("docker.io/library/alpine:3", registry+"/alpine:3", "alpine:3", registry+"/alpine:3")
	var p *reader
	for _, s := range list {
		if notRun[s.Text] != "" {
			continue
		}
		if isMake(s) {
			checkTarget(t, root, fmt.Sprintf("%s:%d", document, s.Line), s.Calls[0][1])
			continue
		}
		if p == nil {
			p = newReader(t)
			p.must(t, before[document])
		}
		text := names.Replace(s.Text)
		if slices.Contains(untilInterrupted, s.Text) {
			text = "timeout --signal=INT --kill-after=60 15 " + text + " || { status=$?; [ $status = 124 ] || [ $status = 130 ]; }"
		}
		if r := p.run(t, text); r.Status != 0 && !(r.Status == 1 && s.Text == harmless) {
			t.Errorf("%s:%d: %s: status %d\n%s%s", document, s.Line, s.Text, r.Status, r.Stdout, r.Stderr)
		} else {
			t.Logf("%5.1fs  %s", r.Elapsed.Seconds(), s.Text)
		}
	}
}

// isMake tells a call of make. What a target does is not run here: they set up the computer, or run all tests.
func isMake(s shown.Statement) bool {
	return len(s.Calls) == 1 && s.Calls[0][0] == "make" && len(s.Calls[0]) > 1
}

func checkTarget(t *testing.T, root, where, target string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, phony, _ := strings.Cut(string(text), ".PHONY:")
	phony, _, _ = strings.Cut(phony, "\n")
	if !slices.Contains(strings.Fields(phony), target) {
		t.Errorf("%s: make has no target %s", where, target)
	}
}

// reader is one who types what a document shows: a user with a home, a working directory and a repository in it.
type reader struct {
	world      *testenv.World
	home, work string
}

func newReader(t *testing.T) *reader {
	t.Helper()
	w := testenv.NewWorld(t)
	p := &reader{world: w, home: w.User.Dir(t)}
	p.work = filepath.Join(p.home, "work")
	// The state directory is where the documents say that it is.
	config := filepath.Join(p.home, "config.toml")
	userFile(t, w, config, "[images]\ndefault = \"debian-bookworm-slim\"\n")
	w.Env = append(w.Env, "BANGER_CONFIG="+config, "HOME="+p.home, "PATH="+filepath.Join(p.home, "bin")+":"+w.Bin+":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "GIT_CONFIG_NOSYSTEM=1")
	userFile(t, w, filepath.Join(p.home, "bin", "docker"), "#!/bin/sh\n# stands for docker save: the archive of a small image\ncat "+dockerArchive(t, w)+"\n")
	t.Cleanup(func() { // of state directories that a document made
		p.run(t, `for socket in */run/bangerd.sock; do
			[ ! -S "$socket" ] || { export BANGER_STATE_DIR=$PWD/${socket%%/*}; banger vm delete --force $(banger vm list --quiet); banger daemon stop --force; }
		done`)
	})
	p.must(t, `mkdir -p ~/.local/state ~/keys ~/work && ln -s "$BANGER_STATE_DIR" ~/.local/state/banger && chmod +x ~/bin/docker
		echo secret >~/.netrc; echo key >~/keys/deploy; echo registry=x >~/.npmrc
		git config --global user.name Ada; git config --global user.email ada@example.com; git config --global init.defaultBranch main
		mkdir ~/work/repo && cd ~/work/repo && git init -q && echo '# A repository' >README && printf 'test:\n\t@echo tested\n' >Makefile && git add . && git commit -qm first`)
	return p
}

// run runs what the user types.
func (p *reader) run(t *testing.T, script string) testenv.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := p.world.Command(ctx)
	cmd.Path, cmd.Args, cmd.Dir = "/bin/bash", []string{"bash", "-e", "-o", "pipefail", "-c", script}, p.home
	if _, err := os.Stat(p.work); err == nil {
		cmd.Dir = p.work
	}
	return testenv.Capture(t, cmd)
}

// must is run for what a document takes for granted.
func (p *reader) must(t *testing.T, script string) {
	t.Helper()
	if r := p.run(t, script); r.Status != 0 {
		t.Fatalf("status %d of\n%s\n%s%s", r.Status, script, r.Stdout, r.Stderr)
	}
}

// smallImage is an image with a shell and a few programs.
func smallImage(t *testing.T) v1.Image {
	t.Helper()
	busybox, err := os.ReadFile(testenv.RequireTool(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	entries := []tree.Entry{tree.Directory("bin", 0o755), tree.Directory("etc", 0o755), tree.Literal("bin/busybox", 0o755, busybox),
		tree.Literal("etc/os-release", 0o644, []byte("NAME=small\n")), tree.Literal("etc/passwd", 0o644, []byte("root:x:0:0::/root:/bin/sh\n"))}
	for _, program := range []string{"sh", "cat", "ls", "id", "uname"} {
		entries = append(entries, tree.Entry{Path: "bin/" + program, Kind: tree.Symlink, Mode: 0o777, Link: "busybox"})
	}
	var layer bytes.Buffer
	if err := tree.WriteTar(&layer, tree.Of(entries...)); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/cat", "/etc/os-release"}}})
	if err != nil {
		t.Fatal(err)
	}
	added, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err == nil {
		img, err = mutate.AppendLayers(img, added)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// smallRegistry serves smallImage as alpine:3.
func smallRegistry(t *testing.T) (host string) {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(host + "/alpine:3")
	if err == nil {
		err = remote.Write(ref, smallImage(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// dockerArchive writes what "docker save" gives of smallImage to a file of the user.
func dockerArchive(t *testing.T, w *testenv.World) string {
	t.Helper()
	path := filepath.Join(w.User.Dir(t), "saved.tar")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := tarball.Write(name.MustParseReference("myapp:1"), smallImage(t), file); err != nil {
		t.Fatal(err)
	}
	return path
}
