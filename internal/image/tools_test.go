package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/api"
	"banger/internal/testenv"
)

// umociLayout makes an OCI layout with umoci: two layers, the second of which removes what the first has.
func umociLayout(t *testing.T) (layout string) {
	t.Helper()
	umoci := testenv.RequireTool(t, "umoci")
	dir := t.TempDir()
	run := func(script string) {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "UMOCI="+umoci)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	flags := ""
	if os.Getuid() != 0 {
		flags = " --rootless"
	}
	run(`$UMOCI init --layout L && $UMOCI new --image L:app
		$UMOCI unpack` + flags + ` --image L:app B
		mkdir -p B/rootfs/etc B/rootfs/root B/rootfs/usr/bin && ln -s usr/bin B/rootfs/bin && echo ID=test > B/rootfs/etc/os-release && echo 0123 > B/rootfs/etc/machine-id
		echo mine > B/rootfs/root/.profile && echo old > B/rootfs/usr/bin/tool && echo gone > B/rootfs/gone && $UMOCI repack --image L:app B && rm -rf B
		$UMOCI unpack` + flags + ` --image L:app B && rm B/rootfs/gone && echo '#!/bin/sh' > B/rootfs/usr/bin/tool && $UMOCI repack --image L:app B
		$UMOCI config --image L:app --config.env FROM=umoci --config.user app --config.workingdir /work --config.entrypoint /entry --config.cmd cmd`)
	return filepath.Join(dir, "L")
}

func wantUmoci(t *testing.T, m *Manager, image banger.Image, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	base := m.Dir.Image(image.Key).Rootfs()
	testenv.CheckExt4(t, base)
	if diff := cmp.Diff(wantPaths, paths(t, base)); diff != "" {
		t.Error(diff)
	}
	if c := image.Config; c == nil || c.User != "app" || c.WorkingDir != "/work" || !strings.Contains(strings.Join(c.Env, " "), "FROM=umoci") {
		t.Errorf("configuration %+v", c)
	}
}

// What other tools make of one image is imported as the same tree.
func TestImportWhatOthersMake(t *testing.T) {
	layout := umociLayout(t)
	skopeo := testenv.RequireTool(t, "skopeo")
	for name, to := range map[string]string{"layout": "", "docker": "docker-archive:%s:app:1", "archive": "oci-archive:%s", "zstd": "--dest-compress-format zstd oci:%s:app", "dir": "dir"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			switch to {
			case "":
				path = layout
			case "dir": // not a format of ours
				testenv.Run(t, skopeo, "copy", "-q", "oci:"+layout+":app", "dir:"+path)
				if _, err := newManager(t, "").Import(t.Context(), api.ImportRequest{Name: "app", Path: filepath.Join(path, "manifest.json")}, nil); !errors.Is(err, banger.ErrInvalid) {
					t.Errorf("a manifest alone: %v", err)
				}
				return
			default:
				args := strings.Fields(fmt.Sprintf(to, path))
				testenv.Run(t, skopeo, append(append([]string{"copy", "-q"}, args[:len(args)-1]...), "oci:"+layout+":app", args[len(args)-1])...)
			}
			m := newManager(t, "")
			image, err := m.Import(t.Context(), api.ImportRequest{Name: "app", Path: path}, nil)
			wantUmoci(t, m, image, err)
		})
	}
}

func TestPullFromRealRegistry(t *testing.T) {
	layout := umociLayout(t)
	skopeo := testenv.RequireTool(t, "skopeo")
	registry := testenv.StartRegistry(t, true, false)
	host := registry.Host
	testenv.Run(t, skopeo, "copy", "-q", "--dest-tls-verify=false", "--dest-creds", testenv.RegistryCredentials, "oci:"+layout+":app", "docker://"+host+"/team/app:1")
	m := newManager(t, "")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/team/app:1"}, nil); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("without a password: %v", err)
	}
	t.Setenv("DOCKER_CONFIG", registry.Dir)
	image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/team/app:1"}, nil)
	wantUmoci(t, m, image, err)
}
