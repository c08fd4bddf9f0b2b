// Package dist makes what is given to others, and installs, upgrades and removes it as people do.
package dist

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// tree is where the sources are.
func tree(t *testing.T) string {
	t.Helper()
	testenv.RequireTier(t, "smoke", "soak")
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// makeDist runs scripts/dist for some architectures on a clone of the last commit of a repository, and gives the directory of what it made.
func makeDist(t *testing.T, repository, clone string, architectures ...string) string {
	t.Helper()
	testenv.Run(t, "git", "clone", "--quiet", repository, clone)
	out := filepath.Join(clone, "build", "dist")
	testenv.Run(t, filepath.Join(clone, "scripts", "dist"), append([]string{out}, architectures...)...)
	return out
}

// What is made for both architectures is whole: programs for them that say nothing of where they were built, packages that Debian's own
// check takes, and the parts with their versions. A clone in another place gives the same bytes.
func TestDist(t *testing.T) {
	clone := filepath.Join(t.TempDir(), "a")
	out := makeDist(t, tree(t), clone, "amd64", "arm64")
	sums := read(t, filepath.Join(out, "SHA256SUMS"))
	if n := strings.Count(sums, "\n"); n != 5 {
		t.Errorf("%d files, want an archive and a package for each of two architectures, and a list of parts:\n%s", n, sums)
	}
	testenv.Run(t, "sh", "-c", `cd "$0" && sha256sum --check --quiet SHA256SUMS`, out)
	for arch, machine := range map[string]string{"amd64": "X86-64", "arm64": "AArch64"} {
		unpacked := t.TempDir()
		testenv.Run(t, "tar", "-xzf", one(t, out, "*-linux-"+arch+".tar.gz"), "--strip-components=1", "-C", unpacked)
		deb := one(t, out, "*_"+arch+".deb")
		packed := t.TempDir()
		testenv.Run(t, "dpkg-deb", "--extract", deb, packed)
		for _, name := range testenv.Programs {
			path := filepath.Join(unpacked, "lib", "banger", name)
			kind := testenv.Run(t, "readelf", "--file-header", "--program-headers", path)
			if !strings.Contains(kind, machine) || strings.Contains(kind, "INTERP") {
				t.Errorf("%s for %s is not a static program for it:\n%s", name, arch, kind)
			}
			program := read(t, path)
			if strings.Contains(program, filepath.Dir(filepath.Dir(out))) || strings.Contains(program, os.Getenv("HOME")+"/go/pkg") {
				t.Errorf("%s says where it was built", path)
			}
			if read(t, filepath.Join(packed, "usr", "lib", "banger", name)) != program {
				t.Errorf("%s of the package for %s is another than the archive's", name, arch)
			}
			holdsParts(t, one(t, out, "*.cdx.json"), path)
		}
		if text, err := exec.Command(testenv.RequireTool(t, "lintian"), "--allow-root", "--fail-on", "error,warning", "--suppress-tags", tolerated, deb).CombinedOutput(); err != nil {
			t.Errorf("lintian %s: %v\n%s", deb, err, text)
		}
	}
	other := makeDist(t, clone, filepath.Join(t.TempDir(), "a directory of another length"), "arm64")
	for line := range strings.Lines(read(t, filepath.Join(other, "SHA256SUMS"))) {
		if !strings.Contains(sums, line) {
			t.Errorf("a clone in another place gives another file: %sThe first gave:\n%s", line, sums)
		}
	}
}

// holdsParts checks that a list of parts in CycloneDX's form has every module of a program, by the program's own account.
func holdsParts(t *testing.T, path, program string) {
	t.Helper()
	var parts struct {
		Format     string `json:"bomFormat"`
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal([]byte(read(t, path)), &parts); err != nil || parts.Format != "CycloneDX" {
		t.Fatalf("%s: form %q, %v", path, parts.Format, err)
	}
	has := map[string]bool{}
	for _, part := range parts.Components {
		has[part.Name+" "+part.Version] = true
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil || len(info.Deps) == 0 {
		t.Fatalf("%s: %v, %v", program, info, err)
	}
	for _, module := range info.Deps {
		if !has[module.Path+" "+module.Version] {
			t.Errorf("%s has no %s %s, which is in %s", path, module.Path, module.Version, program)
		}
	}
}

// tolerated are what lintian finds and what is meant: programs that need no library, and a file with the licences of all that is in them.
const tolerated = "statically-linked-binary,copyright-file-contains-full-apache-2-license,copyright-file-contains-full-gpl-license"

// installScript installs the first package, runs a VM, installs the second, and removes it, as root with an ordinary user beside it.
const installScript = `
exec 2>&1
cd /test
as() { su -s /bin/bash banger-test -c "export BANGER_STATE_DIR=/home/state PATH=/usr/local/bin:/usr/bin:/bin; $*"; }
ok() { if "$@"; then echo "ok: $*"; else echo "FAILED ($?): $*"; fi; }
ok apt-get install --yes --no-install-recommends ./first.deb &>apt
tail -n 3 apt
ok test -x /usr/bin/banger
ok man --where banger
ok sh -c 'man banger | grep -q "Linux machine"'
ok bash -c '. /usr/share/bash-completion/completions/banger && complete -p banger'
as banger doctor; echo "doctor: $?"
ok as banger vm run --image debian-bookworm-slim --name keep -- true
vmm=$(pgrep -u banger-test qemu-system)
ok dpkg --install second.deb
ok as banger vm exec keep -- true
ok as banger daemon stop
ok as banger vm exec keep -- true
as banger daemon status | grep -i version
echo "same VMM: $([ "$vmm" = "$(pgrep -u banger-test qemu-system)" ] && echo yes)"
ok apt-get remove --yes banger &>apt
tail -n 3 apt
ok test ! -e /usr/lib/banger -a ! -e /usr/bin/banger
ok test -s /home/state/state.db
ok kill -0 "$vmm"
ok dpkg --install first.deb
ok as banger vm exec keep -- true
ok as banger vm delete --force keep
as banger daemon stop --force
`

// The package goes into a host, is upgraded and removed under a VM that runs, which does not notice.
func TestInstall(t *testing.T) {
	out := makeDist(t, tree(t), filepath.Join(t.TempDir(), "clone"), "amd64")
	deb := one(t, out, "*_amd64.deb")
	w := testenv.NewWorld(t)
	got, why := testenv.Container{
		Script: installScript,
		Prepare: fmt.Sprintf(`cp '%s' "$0/first.deb"; cp '%s' "$0/second.deb"; cp -a '%s' /mnt/root/home/state; chown -R %d:%d /mnt/root/home/state
rm -f /mnt/root/etc/dpkg/dpkg.cfg.d/*`, deb, next(t, deb), w.State, w.User.UID, w.User.GID),
	}.Run(t)
	t.Logf("%s", got)
	if strings.Contains(got, "FAILED") || !strings.Contains(got, "ok: as banger vm delete") || !strings.Contains(got, "same VMM: yes") || !strings.Contains(got, "next") {
		t.Errorf("not all went well\n%s", why)
	}
}

// next makes a later version of a package, whose programs say so.
func next(t *testing.T, deb string) string {
	t.Helper()
	files := filepath.Join(t.TempDir(), "files")
	testenv.Run(t, "dpkg-deb", "--raw-extract", deb, files)
	for _, name := range []string{"bangerd", "banger-machine"} {
		if err := testenv.Build(tree(t), filepath.Join(files, "usr", "lib", "banger", name), "./cmd/"+name, "next"); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Run(t, "sed", "-i", "s/^Version: .*/&.next/", filepath.Join(files, "DEBIAN", "control"))
	path := filepath.Join(filepath.Dir(files), "second.deb")
	testenv.Run(t, "dpkg-deb", "--build", "--root-owner-group", "-Znone", files, path)
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// one is the only file that a pattern names.
func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s in %s: %v, %v, want one", pattern, dir, found, err)
	}
	return found[0]
}
