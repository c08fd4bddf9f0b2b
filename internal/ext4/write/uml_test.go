package write_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// umlInit is process 1 of a user-mode Linux whose root is the host's: it lists each file system as it is, changes it, lets
// its kernel grow it while it is mounted, lists it again, and turns the machine off.
const umlInit = `#!/bin/sh
cd %[1]q || exit
exec >log 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /mnt
list() {
	(cd /mnt/fs && find . -name lost+found -prune -o -printf '%%P\t%%y\t%%m\t%%U:%%G\t%%n\t%%l\0' | sort -z >"$OLDPWD/$1.list" &&
	find . -type f -print0 | sort -z | xargs -0r sha256sum -z >"$OLDPWD/$1.sums")
}
mkdir /mnt/fs
for disk in %[2]s ubdd; do # without prefetching, the thread is there only for inode tables that are not zeroed
	mount -t ext4 -o rw,no_prefetch_block_bitmaps /dev/$disk /mnt/fs || continue
	grep -lx ext4lazyinit /proc/[0-9]*/comm >$disk.lazy
	umount /mnt/fs
done
for disk in %[2]s; do
	mount -t ext4 -o rw /dev/$disk /mnt/fs || continue
	list $disk-before
	mkdir /mnt/fs/new
	for i in $(seq 300); do echo $i >/mnt/fs/new/a-file-with-a-longer-name-$i; done
	head -c 3000000 /bin/bash >/mnt/fs/new/large
	resize2fs /dev/$disk && df -k /mnt/fs | tail -1 >$disk.df
	rm -r /mnt/fs/new && sync
	list $disk-after
	umount /mnt/fs && echo done >$disk.done
done
sync
echo o >/proc/sysrq-trigger
sleep 20
`

// Another kernel than the host's, without root: it mounts what was written, changes it and grows it.
func TestUserModeLinux(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	uml := testenv.RequireTool(t, "linux.uml")
	user := testenv.OrdinaryUser(t)
	dir, err := os.MkdirTemp("", "banger-uml-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	plain, fit, reserved := options(8<<30), options(8<<30), options(1<<30)
	fit.Fit, reserved.ReservedGDT = true, 128
	args, disks := []string{"mem=256M", "root=/dev/root", "rootfstype=hostfs", "rw", "init=" + filepath.Join(dir, "init"), "con=null", "con0=fd:0,fd:1"}, []string{}
	letters := "abc"
	for i, opts := range []write.Options{plain, fit, reserved} {
		image := filepath.Join(dir, fmt.Sprintf("ubd%c", letters[i]))
		if _, err := write.CreateFile(t.Context(), image, opts, tree.Of(everything()...)); err != nil {
			t.Fatal(err)
		}
		judge(t, image)
		if err := os.Truncate(image, 64<<30); err != nil { // room to grow
			t.Fatal(err)
		}
		args, disks = append(args, fmt.Sprintf("ubd%d=%s", i, image)), append(disks, filepath.Base(image))
	}
	// Of this one the kernel has to zero inode tables.
	if err := os.Rename(testenv.Mke2fs(t, 2<<30, "-t", "ext4", "-E", "nodiscard,lazy_itable_init=1"), filepath.Join(dir, "ubdd")); err != nil {
		t.Fatal(err)
	}
	args = append(args, "ubd3="+filepath.Join(dir, "ubdd"))
	if err := os.WriteFile(filepath.Join(dir, "init"), fmt.Appendf(nil, umlInit, dir, strings.Join(disks, " ")), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if err == nil && os.Getuid() == 0 {
			err = os.Chown(path, int(user.UID), int(user.GID))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), uml, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	user.As(cmd)
	out, err := cmd.CombinedOutput()
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatalf("user-mode Linux: %v\n%s\n%s", err, out, log)
	}
	lazy := func(disk string) bool {
		b, err := os.ReadFile(filepath.Join(dir, disk+".lazy"))
		return err != nil || len(b) > 0
	}
	if !lazy("ubdd") {
		t.Error("the kernel has no work with inode tables that are not zeroed")
	}
	for _, disk := range disks {
		image := filepath.Join(dir, disk)
		if lazy(disk) {
			t.Errorf("%s: the kernel goes on to zero inode tables", disk)
		}
		if _, err := os.Stat(image + ".done"); err != nil {
			t.Errorf("%s: the kernel did not come to its end\n%s\n%s", disk, log, out)
			continue
		}
		testenv.CheckExt4(t, image)
		if size := header(t, image)["Block count"]; size != fmt.Sprint(64<<30/4096) {
			t.Errorf("%s: it grew to %s blocks", disk, size)
		}
		list, sums := listed(t, image)
		for _, when := range []string{"-before", "-after"} {
			testenv.SameLines(t, records(t, image+when+".list"), list)
			testenv.SameLines(t, records(t, image+when+".sums"), sums)
		}
	}
}

func records(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	slices.Sort(list)
	return list
}

// listed is what the script lists of an image, as our reader sees it.
func listed(t *testing.T, image string) (list, sums []string) {
	t.Helper()
	types := map[tree.Kind]string{tree.File: "f", tree.Dir: "d", tree.Symlink: "l", tree.CharDevice: "c", tree.BlockDevice: "b", tree.FIFO: "p", tree.Socket: "s"}
	fsys := openFS(t, image)
	for e, err := range withoutLost(fsys.Source(".")) {
		if err != nil {
			t.Fatal(err)
		}
		n, err := fsys.Lookup(e.Path, false)
		if err == nil && e.Kind == tree.HardLink {
			path := e.Path
			e, err = n.Entry(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s\t%s\t%o\t%d:%d\t%d\t%s", strings.TrimPrefix(e.Path, "."), types[e.Kind], e.Mode, e.UID, e.GID, n.Stat().Links, e.Link))
		if e.Kind == tree.File {
			sum := sha256.New()
			if e.Content != nil {
				if _, err := io.Copy(sum, e.Content); err != nil {
					t.Fatal(err)
				}
			}
			sums = append(sums, fmt.Sprintf("%x  ./%s", sum.Sum(nil), e.Path))
		}
	}
	slices.Sort(list)
	slices.Sort(sums)
	return list, sums
}
