package smoke

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"banger/internal/testenv"
)

// aptlessRoot makes the root file system of a host that has QEMU and no apt and no dpkg, with the programs and a user of its own.
func aptlessRoot(t *testing.T, w *testenv.World) (root string) {
	t.Helper()
	root, err := os.MkdirTemp("/var/tmp", "btroot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	tarball := filepath.Join(root, "root.tar")
	testenv.Run(t, testenv.RequireTool(t, "mmdebstrap"), "--mode=root", "--variant=minbase", "--quiet", "--include=qemu-system-x86", "bookworm", tarball)
	testenv.Run(t, "tar", "-xf", tarball, "-C", root, "--exclude=./dev/*")
	testenv.Run(t, "sh", "-ec", `cd "$1" && rm -rf root.tar usr/bin/apt* usr/bin/dpkg* var/lib/apt var/lib/dpkg etc/apt && cp "$2"/* usr/local/bin/ && useradd --root "$1" --create-home --uid 1000 dev`, "sh", root, w.Bin)
	return root
}

// On a host without apt and dpkg, another root file system with nothing of this one, a user gets a kernel of a signed archive and an image
// of a registry, and the machine boots.
func TestHostWithoutApt(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	nspawn := testenv.RequireTool(t, "systemd-nspawn")
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	w := testenv.NewWorld(t)
	var kernels []struct{ Source, Version string }
	w.JSON(&kernels, "kernel", "list")
	archive := testenv.NewMirror(t)
	control, deb := testenv.AptDownload(t, kernels[0].Source)
	archive.Add("bookworm", control, deb)
	pkg, version, _ := strings.Cut(kernels[0].Source, " ")
	archive.Add("bookworm", fmt.Sprintf("Package: linux-image-cloud-amd64\nVersion: %s\nArchitecture: amd64\nDepends: %s (= %s)\n", version, pkg, version), []byte("meta"))
	archive.Publish(t, testenv.Release{Suite: "oldstable", Codename: "bookworm"})
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/hello:1"
	parsed, err := name.ParseReference(ref)
	if err == nil {
		err = remote.Write(parsed, scratchImage(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	root := aptlessRoot(t, w)
	keyring := "/home/dev/archive.gpg"
	testenv.Run(t, "cp", archive.Keyring(t), root+keyring)
	if err := os.WriteFile(root+"/home/dev/config.toml", []byte("[debian]\nkeyring = \""+keyring+"\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `set -e
! command -v apt-get && ! command -v dpkg
export BANGER_CONFIG=/home/dev/config.toml BANGER_MIRROR=` + archive.URL + `
banger kernel pull debian-cloud --quiet
banger kernel list --json | grep '"source"'
banger vm run --rm --image ` + ref + ` --oci-cmd
banger daemon stop`
	cmd := exec.CommandContext(t.Context(), nspawn, "--quiet", "--directory", root, "--register=no", "--keep-unit", "--as-pid2", "--user=dev", "--pipe", "/bin/sh", "-c", script)
	r := testenv.Capture(t, cmd)
	wantStatus(t, r, 0)
	if !strings.Contains(r.Stdout, pkg) || !strings.Contains(r.Stdout, "image 1000 /work [default] <nil>\n") {
		t.Errorf("printed %s\n%s", r.Stdout, r.Stderr)
	}
}
