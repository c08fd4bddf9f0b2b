package guestagent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger"
)

const overlayOptions = "redirect_dir=on,xino=on,metacopy=off,index=off"

// mount makes the target when it is missing.
func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

// mountKernel mounts the kernel's own file systems in the initrd.
func mountKernel() error {
	return errors.Join(
		mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, ""),
		mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, ""),
		mount("devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"))
}

// makeRoot mounts the drives, joins base and disk to the guest's root, switches to it and mounts everything in it.
func makeRoot(drives map[string]string) error {
	err := errors.Join(
		mount(drives[banger.DriveBase], mountBase, "ext4", unix.MS_RDONLY, ""),
		mount(drives[banger.DriveDisk], mountDisk, "ext4", unix.MS_NOATIME, "discard"),
		mount(drives[banger.DriveModules], mountModules, "ext4", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""))
	if err != nil {
		return err
	}
	if err := checkLayout(mountDisk); err != nil {
		return err
	}
	// A disk that stays as it was does for a machine that has what it had; that is told, and the next boot tries again.
	switch grown, err := growDisk(drives[banger.DriveDisk], mountDisk); {
	case err != nil:
		logf("the disk: %v", err)
	case grown:
		logf("the disk has grown")
	}
	upper, work := filepath.Join(mountDisk, banger.DiskUpperDir), filepath.Join(mountDisk, banger.DiskWorkDir)
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	if err := mount("overlay", mountRoot, "overlay", 0, "lowerdir="+mountBase+",upperdir="+upper+",workdir="+work+","+overlayOptions); err != nil {
		return err
	}
	disk, err := os.Open(mountDisk)
	if err != nil {
		return err
	}
	defer disk.Close()
	modules, err := os.Open(mountModules)
	if err != nil {
		return err
	}
	defer modules.Close()
	if err := switchRoot(); err != nil {
		return err
	}
	return mountGuest(disk, modules)
}

// switchRoot moves the kernel's file systems into the new root and enters it. Paths are the guest's from here on, so that
// its symbolic links mean what they say.
func switchRoot() error {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := mount(dir, mountRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	// Nothing reaches the initrd's memory afterwards.
	if err := os.RemoveAll(modulesDir); err != nil {
		return err
	}
	if err := unix.Chdir(mountRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return errors.Join(unix.Chroot("."), unix.Chdir("/"))
}

// mountGuest mounts what the guest finds in its root: banger's own directory first, since all else is bound from there.
func mountGuest(disk, modules *os.File) error {
	const devOpts = unix.MS_NOSUID | unix.MS_NODEV
	err := errors.Join(
		mount("tmpfs", "/run", "tmpfs", devOpts, "mode=0755"),
		os.MkdirAll(initramfs, 0o755),
		os.Mkdir(runDir, 0o700),
		os.Symlink(runDir, runLink),
		mount(fdPath(disk), diskMount, "", unix.MS_BIND, ""),
		mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"),
		mount("tmpfs", "/dev/shm", "tmpfs", devOpts, "mode=1777"))
	if err != nil {
		return err
	}
	linkDevices()
	makeDevices()
	if bootKind() != banger.BootSystem {
		if err := mount("cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "nsdelegate"); err != nil {
			logf("%v", err)
		}
	}
	if err := bindDisk(); err != nil {
		return err
	}
	return errors.Join(installSelf(), mountModulesTree(modules))
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// linkDevices makes what devtmpfs leaves to user space.
func linkDevices() {
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, "/dev/"+name); err != nil && !errors.Is(err, fs.ErrExist) {
			logf("%v", err)
		}
	}
}

// devices are nodes whose modules the kernel loads when one is first opened (MODULE_ALIAS "devname:" in the kernel, module names in
// depmod's modules.devname; numbers: Documentation/admin-guide/devices.txt).
var devices = []struct {
	name         string
	perm         uint32
	major, minor uint32
}{{"fuse", 0o666, 10, 229}, {"net/tun", 0o666, 10, 200}, {"loop-control", 0o660, 10, 237}, {"vhost-net", 0o660, 10, 238}, {"vhost-vsock", 0o660, 10, 241}}

// makeDevices makes the nodes that an init with udev would make: images without one have them too.
func makeDevices() {
	for _, d := range devices {
		path := "/dev/" + d.name
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = unix.Mknod(path, unix.S_IFCHR|d.perm, int(unix.Mkdev(d.major, d.minor)))
		}
		switch {
		case err == nil:
			err = os.Chmod(path, os.FileMode(d.perm)) // not that of the umask
		case errors.Is(err, fs.ErrExist):
			err = nil
		}
		if err != nil {
			logf("%v", err)
		}
	}
}

// bindDisk mounts the plain directories of the disk over the root. The first boot fills them with what the image has there.
func bindDisk() error {
	marker := filepath.Join(diskMount, "data", ".filled")
	_, err := os.Lstat(marker)
	first := errors.Is(err, fs.ErrNotExist)
	for _, bind := range banger.DiskBinds {
		dir := filepath.Join(diskMount, bind.Dir)
		if err := makeDir(dir, bind.Mode); err != nil {
			return err
		}
		if err := makeDir(bind.Target, bind.Mode); err != nil {
			return err
		}
		if first && fillable(bind) {
			if err := fill(dir, bind.Target); err != nil {
				return fmt.Errorf("copy %s of the image to the disk: %w", bind.Target, err)
			}
		}
		if err := mount(dir, bind.Target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if first {
		return os.WriteFile(marker, nil, 0o600)
	}
	return nil
}

// makeDir makes a directory with exactly this mode, and its parents, when it is missing.
func makeDir(path string, mode uint32) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return unix.Chmod(path, mode)
}

// installSelf puts this program where the guest's processes and the kernel find it.
func installSelf() error {
	if err := os.WriteFile(guestBinary, nil, 0o755); err != nil {
		return err
	}
	// The file in the initrd itself: a copy would cost its size in memory.
	if err := unix.Mount("/proc/self/exe", guestBinary, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", guestBinary, err)
	}
	if err := os.Symlink(guestBinary, modprobe); err != nil {
		return err
	}
	linkModprobe()
	return os.WriteFile("/proc/sys/kernel/modprobe", []byte(modprobe), 0)
}

// mountModulesTree shows the kernel's modules at /lib/modules/<version>, whether /lib is a link to /usr/lib or not.
func mountModulesTree(modules *os.File) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	version := unix.ByteSliceToString(uts.Release[:])
	usr, lib := filepath.Join("/usr/lib/modules", version), filepath.Join("/lib/modules", version)
	if err := mount(fdPath(modules), usr, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	var a, b unix.Stat_t
	if unix.Stat(usr, &a) == nil && unix.Stat(lib, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return nil
	}
	return mount(usr, lib, "", unix.MS_BIND, "")
}
