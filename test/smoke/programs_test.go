package smoke

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// makeSite makes what the servers of the internet of tests have for apt, git and npm, and gives its directory.
func makeSite(t *testing.T, w *testenv.World) string {
	t.Helper()
	site := w.User.Dir(t)
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(site, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const control = "Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.test>\nDescription: a test\n"
	noise := make([]byte, 8<<20)
	rand.Read(noise)
	write("deb/DEBIAN/control", control)
	write("deb/usr/share/greeting/text", "from a package\n")
	write("deb/usr/share/greeting/noise", string(noise))
	deb := filepath.Join(site, "greeting.deb")
	testenv.Run(t, testenv.RequireTool(t, "dpkg-deb"), "--root-owner-group", "--build", filepath.Join(site, "deb"), deb)
	content, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	mirror := testenv.NewMirror(t)
	mirror.Add("stable", control, content)
	mirror.Publish(t, testenv.Release{Suite: "stable", Codename: "stable", Packed: []string{"", ".xz"}}) // apt wants the first named, and fetches the second
	mirror.Save(t, filepath.Join(site, "apt", "debian"))
	key, err := os.ReadFile(mirror.Keyring(t))
	if err != nil {
		t.Fatal(err)
	}
	write("apt/key.gpg", string(key))

	git := testenv.RequireTool(t, "git")
	write("work/file", "of the repository\n")
	write("work/noise", string(noise))
	repo := filepath.Join(site, "git", "repo.git")
	testenv.Run(t, git, "init", "-q", "--bare", "-b", "main", repo)
	testenv.Run(t, git, "-C", repo, "config", "http.receivepack", "true")
	work := filepath.Join(site, "work")
	testenv.Run(t, git, "init", "-q", "-b", "main", work)
	testenv.Run(t, git, "-C", work, "add", ".")
	testenv.Run(t, git, "-C", work, "-c", "user.name=t", "-c", "user.email=t@example.test", "commit", "-q", "-m", "first")
	testenv.Run(t, git, "-C", work, "push", "-q", repo, "main")

	// A registry of npm: a document for each package, which names its versions' archives.
	for name, needs := range map[string]string{"outer": `"inner": "^1.0.0"`, "inner": ""} {
		manifest := fmt.Sprintf(`"name": %q, "version": "1.2.3", "dependencies": {%s}`, name, needs)
		write("pack/"+name+"/package/package.json", "{"+manifest+"}")
		write("pack/"+name+"/package/index.js", "module.exports = 'from "+name+"'\n")
		if err := os.MkdirAll(filepath.Join(site, "npm", "files"), 0o755); err != nil {
			t.Fatal(err)
		}
		testenv.Run(t, "tar", "czf", filepath.Join(site, "npm", "files", name+".tgz"), "-C", filepath.Join(site, "pack", name), "package")
		write("npm/"+name, fmt.Sprintf(`{"name": %q, "dist-tags": {"latest": "1.2.3"}, "versions": {"1.2.3": {%s, "dist": {"tarball": "http://npm.example.test/files/%s.tgz"}}}}`, name, manifest, name))
	}
	return site
}

// withLibraries copies a program of this computer, with the libraries it needs, into a VM whose system is the same.
func withLibraries(t *testing.T, w *testenv.World, vm, program string, more ...string) {
	t.Helper()
	script := fmt.Sprintf(`set -o pipefail; cd / && tar chf - %s $(ldd %[1]s | grep -o '/[^ ]*') | %[2]s/banger vm exec %[3]s -- tar xf - -C / --skip-old-files`, program, w.Bin, vm)
	for _, dir := range more {
		script += fmt.Sprintf(` && tar cf - %s | %s/banger vm exec %s -- tar xf - -C / --skip-old-files`, dir, w.Bin, vm)
	}
	cmd := w.Command(t.Context())
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", script}
	if r := testenv.Capture(t, cmd); r.Status != 0 {
		t.Fatalf("copy %s into the guest: %s", program, r.Stderr)
	}
}

// Programs that developers use every day reach their servers under an allow list: apt and its signatures, git by HTTP both ways, curl with an
// authority of its own, npm.
func TestRealPrograms(t *testing.T) { // alone: its environment is that of the whole process
	testenv.RequireTier(t, "smoke")
	curl := testenv.RequireTool(t, "curl")
	w := testenv.NewWorld(t)
	site := makeSite(t, w)
	t.Setenv(testenv.EnvSite, site)
	w.GoOnline()
	w.Must("vm", "run", "--name", "box", "--memory", "1G", "--ca", filepath.Join(site, "ca.pem"), "--net", "allow=*.example.test", "--", "true")
	run := func(t *testing.T, script, want string) {
		t.Helper()
		r := w.Run("vm", "exec", "box", "--", "timeout", "250", "bash", "-ec", script)
		if r.Status != 0 || !strings.Contains(r.Stdout, want) {
			t.Errorf("%s\nstatus %d, printed %q, want %q\n%s", script, r.Status, r.Stdout, want, r.Stderr)
		}
	}
	t.Run("curl", func(t *testing.T) {
		withLibraries(t, w, "box", curl)
		run(t, "curl -sS http://www.example.test/", "www.example.test at "+testenv.OriginAddr)
		run(t, "curl -sS https://www.example.test/", "www.example.test at "+testenv.OriginAddr)
		run(t, "curl -sS https://www.example.test/[1-20] https://other.example.test/ | grep -o 'example.test at' | wc -l", "21\n") // one connection for many
		run(t, "curl -sS --cacert /dev/null https://www.example.test/ 2>&1 || echo refused", "refused")
		run(t, "curl -sS --connect-timeout 20 https://www.nowhere.test/ 2>&1 || echo refused", "refused")
	})
	t.Run("apt", func(t *testing.T) {
		run(t, `rm -rf /etc/apt/sources.list.d/*; curl -sS -o /usr/share/keyrings/test.gpg http://apt.example.test/key.gpg
echo 'deb [signed-by=/usr/share/keyrings/test.gpg] http://apt.example.test/debian stable main' > /etc/apt/sources.list
apt-get -q update 2>&1 && apt-get -q install -y greeting 2>&1 && cat /usr/share/greeting/text`, "from a package\n")
		run(t, "echo 'deb [signed-by=/usr/share/keyrings/test.gpg] https://apt.example.test/debian stable main' > /etc/apt/sources.list; rm -r /var/lib/apt/lists; apt-get -q update 2>&1", "https://apt.example.test/debian stable InRelease")
	})
	t.Run("git", func(t *testing.T) {
		run(t, `cd /root && git clone -q http://git.example.test/repo.git && cd repo && cat file && echo more > more && git add . &&
git -c user.name=g -c user.email=g@example.test commit -q -m second && git push -q origin main`, "of the repository\n")
		run(t, "git clone -q https://git.example.test/repo.git /root/again && cat /root/again/more", "more\n")
	})
	t.Run("npm", func(t *testing.T) {
		node := testenv.RequireTool(t, "node")
		npm, err := filepath.EvalSymlinks(testenv.RequireTool(t, "npm"))
		if err != nil {
			t.Fatal(err)
		}
		withLibraries(t, w, "box", node, filepath.Dir(filepath.Dir(npm)))
		run(t, `mkdir -p /root/app && cd /root/app && echo '{"name": "app"}' > package.json &&
node `+npm+` install --registry http://npm.example.test --no-audit --no-fund --no-update-notifier outer 2>&1 && node -p 'require("outer") + " and " + require("inner")'`, "from outer and from inner\n")
	})
	if out := w.Must("vm", "net", "box", "log"); !strings.Contains(out, "npm.example.test:80") || !strings.Contains(out, "git.example.test:443") {
		t.Errorf("the log:\n%s", out)
	}
}
