package lifecycle

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/filesync"
	"banger/internal/statedir"
	"banger/internal/testenv"
	"banger/internal/tree"
)

func newStateDir(t *testing.T) statedir.Dir {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "bl") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	dir := statedir.Dir{Root: root}
	if err := dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	return dir
}

const homeID = banger.VMID("0123456789ab")

// newHomeDir gives a state directory with an image that has a seed only.
func newHomeDir(t *testing.T) (Directories, Home) {
	t.Helper()
	d := Directories{Dir: newStateDir(t)}
	home := Home{ID: homeID, Name: "box", ImageKey: strings.Repeat("a", 64), DiskBytes: 256 << 20, GitName: "Jo", GitEmail: "jo@example.org"}
	image := d.Dir.Image(home.ImageKey)
	var seed bytes.Buffer
	err := tree.WriteTar(&seed, tree.Of(tree.Literal(".bashrc", 0o644, []byte("alias x=y\n"))))
	if err := errors.Join(err, os.Mkdir(image.Path, 0o700), os.WriteFile(image.Seed(), seed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return d, home
}

func TestHome(t *testing.T) {
	d, home := newHomeDir(t)
	home.Sync = []filesync.File{{Guest: "/root/.ssh", Dir: true, Mode: 0o755}, {Guest: "/root/.ssh/id", Mode: 0o400, Content: []byte("key")}, {Guest: "~/for-another-user", Mode: 0o600}}
	if err := d.Create(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	dir := d.Dir.VM(home.ID)
	if err := d.Check(home.ID); err != nil {
		t.Errorf("Check: %v", err)
	}
	for path, want := range map[string]fs.FileMode{dir.Path: fs.ModeDir | 0o700, dir.UserKey(): 0o600, dir.HostKey(): 0o600, dir.Disk(): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want mode %v", path, info, err, want)
		}
	}
	if out, err := exec.Command(testenv.RequireTool(t, "e2fsck"), "-fn", dir.Disk()).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	line, err := exec.Command(testenv.RequireTool(t, "debugfs"), "-R", "cat /data/root/.ssh/authorized_keys", dir.Disk()).Output()
	if err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"cat /data/root/.ssh/id": "key", "cat /sync.json": `{"/root/.ssh/id":"` + filesync.Mark(0o400, []byte("key")) + `"}`, "stat /data/root/.ssh": "Mode:  0700",
		"stat /data/root/.ssh/id": "Mode:  0400", "stat /sync.json": "Mode:  0600", "ls /data/root": ".bashrc"} {
		out, err := exec.Command(testenv.RequireTool(t, "debugfs"), "-R", command, dir.Disk()).Output()
		if err != nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "another") {
			t.Errorf("debugfs %s: %q, %v, want %q", command, out, err, want)
		}
	}
	authorized, comment, _, rest, err := ssh.ParseAuthorizedKey(line)
	if err != nil || comment != home.Name || len(rest) > 0 {
		t.Fatalf("authorized_keys = %q, %v", line, err)
	}
	private, err := os.ReadFile(dir.UserKey())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil || !bytes.Equal(signer.PublicKey().Marshal(), authorized.Marshal()) {
		t.Errorf("the user's key is not the authorized one: %v", err)
	}
	if err := os.Mkdir(d.Dir.VMs()+"/no-id", 0o700); err != nil {
		t.Fatal(err)
	}
	if ids, err := d.List(); err != nil || !slices.Equal(ids, []banger.VMID{home.ID}) {
		t.Errorf("List = %v, %v", ids, err)
	}
	if err := errors.Join(d.Remove(home.ID), d.Remove(home.ID)); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if err := d.Check(home.ID); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Check of nothing = %v, want corrupt", err)
	}
}

func TestHomeFails(t *testing.T) {
	d, home := newHomeDir(t)
	if err := os.Remove(d.Dir.Image(home.ImageKey).Seed()); err != nil {
		t.Fatal(err)
	}
	if err := d.Create(t.Context(), home); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Create without a seed = %v, want corrupt", err)
	}
	if ids, err := d.List(); err != nil || len(ids) > 0 {
		t.Errorf("left %v, %v", ids, err)
	}
}
