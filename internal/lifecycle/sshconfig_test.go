package lifecycle

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

// OpenSSH itself says what it reads in the file, for paths with everything that has a meaning there.
func TestSSHConfig(t *testing.T) {
	ssh := testenv.RequireTool(t, "ssh")
	root := filepath.Join(t.TempDir(), `it's 100% "mine" $HOME`)
	dir := statedir.Dir{Root: root}
	vm := banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}, Accel: "tcg"}
	other := banger.VM{ID: "ba9876543210", Spec: banger.VMSpec{Name: "other", User: "1000:1000"}}
	unmade := banger.VM{ID: "aaaaaaaaaaaa", Spec: banger.VMSpec{Name: "unmade"}}
	hostile := banger.VM{ID: "bbbbbbbbbbbb", Spec: banger.VMSpec{Name: "hostile", User: "x\n    ProxyCommand evil"}}
	for _, made := range []banger.VM{vm, other, hostile} {
		if err := errors.Join(os.MkdirAll(dir.VM(made.ID).Path, 0o700), os.WriteFile(dir.VM(made.ID).KnownHosts(), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	config := &SSHConfig{Dir: dir, Program: "/opt/it's/banger", User: func(vm banger.VM) string { return vm.Spec.User }}
	text := config.config([]banger.VM{vm, other, unmade, hostile})
	if err := os.WriteFile(dir.SSHConfig(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := `env BANGER_STATE_DIR='` + strings.NewReplacer(`'`, `'\''`, "%", "%%").Replace(root) + `' '/opt/it'\''s/banger' ssh-proxy `
	for _, tc := range []struct {
		host string
		want []string
	}{
		{"devbox.vm", []string{"user root", "hostkeyalias 0123456789ab", "userknownhostsfile " + dir.VM(vm.ID).KnownHosts(), "forwardagent no",
			"ciphers chacha20-poly1305@openssh.com,aes128-gcm@openssh.com", "stricthostkeychecking true", "identitiesonly yes"}},
		{"other.vm", []string{"user 1000:1000", "hostkeyalias ba9876543210"}},
		{"unmade.vm", []string{"user root", "userknownhostsfile none", "stricthostkeychecking true"}},
		{"hostile.vm", []string{"user root", "hostkeyalias bbbbbbbbbbbb"}},
	} {
		out, err := exec.Command(ssh, "-F", dir.SSHConfig(), "-G", tc.host).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh -G %s: %v\n%s\n%s", tc.host, err, out, text)
		}
		for _, want := range append(tc.want, "proxycommand "+proxy+"%h") {
			if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
				t.Errorf("ssh -G %s lacks %q:\n%s", tc.host, want, out)
			}
		}
	}
}

// What is kept of an earlier text does not outlive a change: the text is always that which would be written from nothing.
func TestSSHConfigFollowsChanges(t *testing.T) {
	dir := statedir.Dir{Root: t.TempDir()}
	user := func(vm banger.VM) string { return vm.ImageKey + vm.Spec.User }
	kept := &SSHConfig{Dir: dir, Program: "/banger", User: user}
	vms := []banger.VM{{ID: "000000000001", Spec: banger.VMSpec{Name: "a"}}, {ID: "000000000002", Spec: banger.VMSpec{Name: "b"}}}
	if err := os.MkdirAll(dir.VM(vms[0].ID).Path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir.VM(vms[1].ID).Path, 0o700); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, change := range []func(){
		func() {},
		func() { os.WriteFile(dir.VM(vms[0].ID).KnownHosts(), nil, 0o600) },
		func() { os.WriteFile(dir.VM(vms[1].ID).KnownHosts(), nil, 0o600) },
		func() { vms[0].Spec.Name = "renamed" },
		func() { vms[0].Accel = "tcg" },
		func() { vms[1].ImageKey = "image" },
		func() { vms[1].Spec.User = "me" },
		func() { vms[0].Spec.Name, vms[1].Spec.Name = "b", "renamed" },
		func() { vms = vms[1:] },
	} {
		change()
		got, want := kept.config(vms), (&SSHConfig{Dir: dir, Program: "/banger", User: user}).config(vms)
		if got != want {
			t.Errorf("after %d changes:\n%s\nwant\n%s", len(seen), got, want)
		}
		seen[got] = true
	}
	if len(seen) != 9 {
		t.Errorf("%d different texts after 9 changes", len(seen))
	}
}
