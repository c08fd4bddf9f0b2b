package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/disk"
	"banger/internal/ext4/write"
	"banger/internal/statedir"
	"banger/internal/testenv"
	"banger/internal/tree"
	"banger/internal/workspace"
)

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.RequireTool(t, "git"), append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// openDisk gives the files of a stopped VM that has a directory of this machine as its /root.
func openDisk(t *testing.T, root string) *disk.FS {
	t.Helper()
	dir := statedir.VMDir{Path: t.TempDir()}
	seed, base := filepath.Join(t.TempDir(), "seed.tar"), filepath.Join(t.TempDir(), "base")
	testenv.Run(t, "tar", "-c", "--format=pax", "--owner=0", "--group=0", "-C", root, "-f", seed, ".")
	if _, err := write.CreateFile(t.Context(), base, write.Options{SizeBytes: 8 << 20}, tree.Of(tree.Directory("root", 0o700))); err != nil {
		t.Fatal(err)
	}
	if err := disk.Create(t.Context(), dir, disk.Options{SizeBytes: 64 << 20, Seed: seed, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	open := func(name string) (*os.File, int64) {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return file, info.Size()
	}
	lower, lowerBytes := open(base)
	upper, upperBytes := open(dir.Disk())
	files, err := disk.OpenFS(lower, lowerBytes, upper, upperBytes)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// newGuest makes a host's repository and a clone of it as a guest has it, below root.
func newGuest(t *testing.T) (host, root string, vm banger.VM) {
	t.Helper()
	host, root = t.TempDir(), t.TempDir()
	gitIn(t, host, "init", "-q", "-b", "main")
	if err := os.WriteFile(filepath.Join(host, "a"), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	gitIn(t, host, "add", ".")
	gitIn(t, host, "commit", "-q", "-m", "first")
	gitIn(t, root, "clone", "-q", "--no-hardlinks", host, "repo")
	return host, root, banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"},
		Workspaces: []banger.Workspace{{GuestPath: "/root/repo", HostPath: host, Head: gitIn(t, host, "rev-parse", "HEAD")}}}
}

// TestHostileDisk keeps the work of a guest that tries all it can on the disk of a VM that does not run.
func TestHostileDisk(t *testing.T) {
	host, root, vm := newGuest(t)
	repo := filepath.Join(root, "repo")
	canary, secret := testenv.HostileGuest(t, repo)
	state := statedir.Dir{Root: t.TempDir()}
	saves := workspace.Saves{Dir: filepath.Join(t.TempDir(), "saves")}
	kept, err := keeper{state, saves}.keep(t.Context(), vm, openDisk(t, root))
	if err != nil || len(kept) != 1 {
		t.Fatalf("keep() = %v, %v", kept, err)
	}
	if err := workspace.Restore(t.Context(), kept[0], host); err != nil {
		t.Fatal(err)
	}
	for name := range kept[0].Refs {
		if strings.HasSuffix(name, "/all") && (gitIn(t, host, "show", name+":a") != "2" || gitIn(t, host, "show", name+":b") != "3") {
			t.Errorf("%s is not what the guest has", name)
		}
		if strings.Contains(name, "evil") || strings.Contains(name, "passwd") {
			t.Errorf("ref %q was taken", name)
		}
	}
	for ref := range strings.FieldsSeq(gitIn(t, host, "for-each-ref", "--format=%(refname)")) {
		if ref != "refs/heads/main" && !strings.HasPrefix(ref, "refs/banger/devbox/") {
			t.Errorf("the host has a ref %s", ref)
		}
	}
	if _, err := os.Lstat(canary); err == nil {
		t.Error("a program of the guest ran")
	}
	if exec.Command("git", "-C", host, "cat-file", "-e", secret).Run() == nil {
		t.Error("an object of another repository of the host was taken")
	}
	gitIn(t, host, "fsck", "--strict")
}

// A ".git" that names places of the host leads nowhere: the paths are the guest's.
func TestDiskNamesPlacesOfTheHost(t *testing.T) {
	_, root, vm := newGuest(t)
	other := t.TempDir()
	gitIn(t, other, "init", "-q")
	gitIn(t, other, "commit", "-q", "--allow-empty", "-m", "secret")
	repo := filepath.Join(root, "repo")
	for name, change := range map[string]func() error{
		"gitdir": func() error {
			if err := os.RemoveAll(filepath.Join(repo, ".git")); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(repo, ".git"), []byte("gitdir: "+filepath.Join(other, ".git")+"\n"), 0o644)
		},
		"symbolic link": func() error {
			if err := os.RemoveAll(filepath.Join(repo, ".git")); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(other, ".git"), filepath.Join(repo, ".git"))
		},
		"commondir": func() error {
			if err := os.RemoveAll(filepath.Join(repo, ".git")); err != nil {
				return err
			}
			gitIn(t, repo, "init", "-q")
			return os.WriteFile(filepath.Join(repo, ".git/commondir"), []byte(filepath.Join(other, ".git")+"\n"), 0o644)
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		kept, err := keeper{statedir.Dir{Root: t.TempDir()}, workspace.Saves{Dir: t.TempDir()}}.keep(t.Context(), vm, openDisk(t, root))
		if err == nil {
			t.Errorf("%s: kept %v", name, kept)
		}
	}
}
