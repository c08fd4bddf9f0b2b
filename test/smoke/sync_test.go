package smoke

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// TestFileSync: files of the home go into a new machine's disk and are brought up to date at each start, for root and for another user;
// what the machine has changed itself stays; nothing of a secret is told; a link of the guest leads nowhere.
func TestFileSync(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	home := w.User.Dir(t)
	put := func(name, content string) { t.Helper(); userFile(t, w, filepath.Join(home, name), content) }
	put("config.toml", "[images]\ndefault = \"debian-bookworm-slim\"\n[[file_sync]]\nhost = \"~/.netrc\"\n[[file_sync]]\nhost = \"~/tool\"\nguest = \"~/.config/tool\"\n")
	w.Env = append(w.Env, "HOME="+home, "BANGER_CONFIG="+filepath.Join(home, "config.toml"))
	put(".netrc", "hunter2 one")
	put("tool/sub/conf", "conf one")
	put("key", "hunter2 key")

	if out := w.Must("config", "show"); !strings.Contains(out, "file_sync[2]") || !strings.Contains(out, filepath.Join(home, "config.toml")) {
		t.Errorf("config show:\n%s", out)
	}
	w.Must("vm", "create", "--name", "box", "--sync", "~/key:~/.ssh/id_test:0400", "--sync", "~/missing")
	if out := w.Must("vm", "cp", "box:/root/.netrc", "-"); !strings.Contains(out, "hunter2 one") {
		t.Errorf("in the disk before the first start: %q", out)
	}
	look := []string{"vm", "exec", "box", "--", "sh", "-c", "cd; stat -c '%n %a %U' .netrc .ssh/id_test .config .config/tool/sub; cat .netrc .config/tool/sub/conf .ssh/id_test"}
	start := w.Run("vm", "start", "box")
	wantStatus(t, start, 0, "~/missing is not there")
	if out, want := w.Must(look...), ".netrc 600 root\n.ssh/id_test 400 root\n.config 700 root\n.config/tool/sub 755 root\nhunter2 oneconf onehunter2 key"; out != want {
		t.Errorf("after the first start:\n%s\nwant\n%s", out, want)
	}

	w.Must("vm", "exec", "box", "--", "sh", "-c", "cd; echo mine > .netrc; echo its > .ssh/id_test; rm -r .config/tool; mkdir /outside; ln -s /outside .config/tool")
	w.Must("vm", "restart", "box")
	if out := w.Must("vm", "exec", "box", "--", "sh", "-c", "cd; cat .netrc .ssh/id_test; ls /outside"); out != "mine\nits\n" {
		t.Errorf("what the machine has changed is %q after a start", out)
	}
	put(".netrc", "hunter2 two")
	put("tool/sub/conf", "conf two")
	restart := w.Run("vm", "restart", "box")
	wantStatus(t, restart, 0, `"root/.netrc" has changed in the VM, too: that version is beside it, ".netrc.banger-old"`)
	wantStatus(t, restart, 0, `"root/.config/tool/sub/conf" in the VM stays as it is`)
	if out := w.Must("vm", "exec", "box", "--", "sh", "-c", "cd; cat .netrc; echo; cat .netrc.banger-old .ssh/id_test; ls /outside"); out != "hunter2 two\nmine\nits\n" {
		t.Errorf("after a change on both sides: %q", out)
	}

	w.Must("vm", "create", "--name", "other", "--user", "dev")
	wantStatus(t, w.Run("vm", "start", "other"), 0, `no user "dev" in the guest`)
	w.Must("vm", "exec", "--user", "root", "other", "--", "sh", "-c", "echo dev:x:1234:1234::/home/dev:/bin/sh >> /etc/passwd; mkdir -p /home/dev; chown 1234:1234 /home/dev")
	w.Must("vm", "restart", "other")
	if out := w.Must("vm", "exec", "other", "--", "sh", "-c", "id -u; cat ~/.netrc; stat -c ' %u %a' ~/.netrc ~/.config"); out != "1234\nhunter2 two 1234 600\n 1234 700\n" {
		t.Errorf("of another user: %q", out)
	}
	shown := w.Must("vm", "show", "--json", "box")
	if !strings.Contains(shown, `"guest": "/root/.ssh/id_test"`) || strings.Contains(shown, "hunter2") {
		t.Errorf("vm show --json: %s", shown)
	}
	log := testenv.Capture(t, exec.Command("sh", "-c", `grep -rl hunter2 "$0" --include='*.log' --include='*.json' --include='*.db*'`, w.State))
	if log.Stdout != "" {
		t.Errorf("a secret is in %s", log.Stdout)
	}
}
