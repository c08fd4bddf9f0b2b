// Command nasty changes the root file system of a guest in every way that an overlay has a mark for.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() (err error) {
	must := func(step error) {
		if err == nil && step != nil {
			err = step
		}
	}
	write := func(name, text string) { must(os.WriteFile(name, []byte(text), 0o640)) }

	// Directories of the image: renamed, renamed again, out of one that moved, with a new one in the old place.
	must(os.Rename("/usr/share/base-files", "/usr/share/renamed"))
	must(os.Rename("/usr/share/common-licenses", "/srv/licenses"))
	must(os.Rename("/etc/apt", "/opt/apt"))
	must(os.Rename("/opt/apt/apt.conf.d", "/srv/conf"))
	must(os.Rename("/srv", "/service"))
	must(os.Mkdir("/srv", 0o751))
	write("/srv/new", "in the old place")
	must(os.Rename("/usr/share/debianutils", "/usr/share/"+strings.Repeat("n", 255)))

	// Removed, and made again as something else.
	must(os.RemoveAll("/usr/share/doc"))
	must(os.MkdirAll("/usr/share/doc/again", 0o700))
	must(os.RemoveAll("/etc/cron.daily"))
	write("/etc/cron.daily", "a file where a directory was")
	must(os.Remove("/etc/issue"))
	must(os.Mkdir("/etc/issue", 0o755))
	must(os.Remove("/etc/issue.net"))
	must(os.RemoveAll("/var/lib/dpkg/info"))
	must(os.Symlink("/nowhere", "/var/lib/dpkg/info"))

	// Changed without being moved: copied up.
	must(os.Chmod("/etc/passwd", 0o604))
	must(os.Lchown("/etc/shells", 1234, 4_000_000_000))
	must(os.Link("/etc/group", "/etc/group.link"))
	must(os.Link("/etc/group", "/usr/share/group.link"))

	// New: every kind, long names, attributes.
	must(os.MkdirAll("/new/"+strings.Repeat("d", 255)+"/deep", 0o755))
	write("/new/"+strings.Repeat("ü", 127), "255 bytes")
	write("/new/new\nline \xff\\", "no text")
	must(os.Symlink("../etc/passwd", "/new/relative"))
	must(os.Symlink("/etc/passwd", "/new/absolute"))
	must(os.Symlink(strings.Repeat("x", 4000), "/new/long"))
	must(unix.Mknod("/new/char", unix.S_IFCHR|0o620, int(unix.Mkdev(5, 1))))
	must(unix.Mknod("/new/block", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70_000))))
	must(unix.Mkfifo("/new/fifo", 0o600))
	write("/new/capable", "")
	must(unix.Setxattr("/new/capable", "security.capability", []byte("\x01\x00\x00\x02\x00\x20"+strings.Repeat("\x00", 14)), 0))
	must(unix.Setxattr("/new", "user.note", []byte("on a directory"), 0))
	must(unix.Setxattr("/etc/hosts", "trusted.note", []byte("of the image"), 0))
	must(unix.Chmod("/new/capable", 0o6755))
	sparse, sparseErr := os.Create("/new/sparse")
	must(sparseErr)
	if sparseErr == nil {
		_, at := sparse.WriteAt([]byte("end"), 1<<30)
		must(at)
		must(sparse.Close())
	}

	// In every directory of the disk that is bound over the root, with marks there that are not the root's.
	for _, dir := range []string{"/root", "/home", "/tmp", "/var/tmp", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/buildkit",
		"/var/lib/rancher", "/var/lib/kubelet", "/var/lib/machines"} {
		write(dir+"/file", dir)
		must(os.MkdirAll(dir+"/a/b", 0o700))
		must(os.Rename(dir+"/a/b", dir+"/b"))
		must(unix.Mknod(dir+"/gone", unix.S_IFCHR|0o600, 0))
		must(unix.Setxattr(dir+"/b", "trusted.overlay.opaque", []byte("y"), 0))
		must(os.Link(dir+"/file", dir+"/b/hard"))
	}
	unix.Sync()
	return err
}
