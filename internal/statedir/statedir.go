// Package statedir names every file and socket under banger's directories. Nobody else joins these paths;
// docs/state-dir.md explains each.
package statedir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"banger"
)

// maxSocketPath is the longest path that fits sockaddr_un with its NUL (unix(7): 108 bytes).
const maxSocketPath = 107

// Dir is the state directory of one owner: an absolute path.
type Dir struct{ Root string }

// Locate gives the state directory of this user: $BANGER_STATE_DIR, else $XDG_STATE_HOME/banger, else
// ~/.local/state/banger.
func Locate() (Dir, error) {
	root := os.Getenv("BANGER_STATE_DIR")
	if root == "" {
		if xdg := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(xdg) {
			root = filepath.Join(xdg, "banger")
		}
	}
	if root == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return Dir{}, fmt.Errorf("locate state directory: %w", err)
		}
		root = filepath.Join(home, ".local", "state", "banger")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return Dir{}, fmt.Errorf("locate state directory: %w", err)
	}
	return Dir{Root: root}, nil
}

// Ensure makes the directory and its standard subdirectories 0700 and checks that root is a real directory of ours.
// Errors: ErrRefused when it belongs to someone else, is a symlink or is open to others; ErrInvalid when its path is
// too long for the sockets in it.
func (d Dir) Ensure() error {
	if long := d.VM("000000000000").ChannelSocket(); len(long) > maxSocketPath {
		return &banger.Error{Kind: banger.ErrInvalid, Op: "state directory", Subject: d.Root,
			Err:  fmt.Errorf("the path is %d bytes too long for the unix sockets in it", len(long)-maxSocketPath),
			Hint: "set BANGER_STATE_DIR to a shorter path"}
	}
	if err := os.MkdirAll(d.Root, 0o700); err != nil {
		return &banger.Error{Kind: banger.ErrUnavailable, Op: "make state directory", Subject: d.Root, Err: err}
	}
	if err := d.Check(); err != nil {
		return err
	}
	for _, sub := range []string{d.Images(), d.Blobs(), d.Kernels(), d.VMs(), d.Run(), d.Peers()} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return &banger.Error{Kind: banger.ErrUnavailable, Op: "make state directory", Subject: sub, Err: err}
		}
	}
	return nil
}

// Check says what is wrong with a state directory that is there. Errors: ErrRefused, also for one on a file system that does not keep
// what is synced or locks for this host alone.
func (d Dir) Check() error { return errors.Join(checkOwned(d.Root), checkFileSystem(d.Root)) }

// Parent is the directory that holds path.
func Parent(path string) string { return filepath.Dir(path) }

func checkOwned(path string) error {
	refuse := func(format string, args ...any) error {
		return &banger.Error{Kind: banger.ErrRefused, Op: "state directory", Subject: path, Err: fmt.Errorf(format, args...),
			Hint: "set BANGER_STATE_DIR to a directory of your own, mode 0700"}
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return refuse("is a symbolic link")
	case !info.IsDir():
		return refuse("is not a directory")
	case int(st.Uid) != os.Getuid():
		return refuse("belongs to user %d, not to %d", st.Uid, os.Getuid())
	case info.Mode().Perm()&0o077 != 0:
		return refuse("has mode %04o, others can enter it", info.Mode().Perm())
	}
	return nil
}

func (d Dir) Images() string   { return filepath.Join(d.Root, "images") }
func (d Dir) Blobs() string    { return filepath.Join(d.Root, "cache", "blobs", "sha256") } // files of registries by digest
func (d Dir) Bundles() string  { return filepath.Join(d.Root, "cache", "bundles") }         // files of the catalog that are coming, by digest
func (d Dir) Kernels() string  { return filepath.Join(d.Root, "kernels") }
func (d Dir) VMs() string      { return filepath.Join(d.Root, "vms") }
func (d Dir) Run() string      { return filepath.Join(d.Root, "run") }
func (d Dir) Peers() string    { return filepath.Join(d.Run(), "peers") }
func (d Dir) Database() string { return filepath.Join(d.Root, "state.db") }

// DaemonSocket is where bangerd listens (0600), DaemonLock what it holds with flock while it lives.
func (d Dir) DaemonSocket() string { return filepath.Join(d.Run(), "bangerd.sock") }
func (d Dir) DaemonLock() string   { return filepath.Join(d.Run(), "bangerd.lock") }
func (d Dir) DaemonLog() string    { return filepath.Join(d.Root, "bangerd.log") }

// Autosaves holds the work of deleted VMs.
func (d Dir) Autosaves() string { return filepath.Join(d.Root, "autosave") }

// CatalogSeen remembers the newest serial of each catalog.
func (d Dir) CatalogSeen() string { return filepath.Join(d.Root, "catalog.json") }

// Consents holds what the user has allowed repositories, a file for each.
func (d Dir) Consents() string { return filepath.Join(d.Root, "allowed") }

// Consent is the file of the repository at root, an absolute path.
func (d Dir) Consent(root string) string {
	sum := sha256.Sum256([]byte(root))
	return filepath.Join(d.Consents(), hex.EncodeToString(sum[:16])+".json")
}

// SSHConfig is what OpenSSH's programs are told about the VMs.
func (d Dir) SSHConfig() string { return filepath.Join(d.Root, "ssh_config") }

// AccelProbe caches the answer of the KVM probe.
func (d Dir) AccelProbe() string { return filepath.Join(d.Root, "accel.json") }

// Image is the directory of the base with this content key; ImageStaging where it is made before the rename.
func (d Dir) Image(key string) ImageDir { return ImageDir{filepath.Join(d.Images(), key)} }
func (d Dir) ImageStaging(key string) ImageDir {
	return ImageDir{filepath.Join(d.Images(), "."+key+".staging")}
}

// Kernel is the directory of a kernel by name; KernelStaging where it is made before the rename.
func (d Dir) Kernel(name string) KernelDir { return KernelDir{filepath.Join(d.Kernels(), name)} }
func (d Dir) KernelStaging(name string) KernelDir {
	return KernelDir{filepath.Join(d.Kernels(), "."+name+".staging")}
}

// VM is the directory of one VM.
func (d Dir) VM(id banger.VMID) VMDir { return VMDir{filepath.Join(d.VMs(), string(id))} }

// ImageDir is one published base.
type ImageDir struct{ Path string }

func (d ImageDir) Rootfs() string   { return filepath.Join(d.Path, "rootfs.ext4") } // 0444
func (d ImageDir) Seed() string     { return filepath.Join(d.Path, "seed.tar") }    // the image's /root
func (d ImageDir) Manifest() string { return filepath.Join(d.Path, "image.json") }

// KernelDir is one unpacked kernel.
type KernelDir struct{ Path string }

func (d KernelDir) Vmlinux() string     { return filepath.Join(d.Path, "vmlinux") }
func (d KernelDir) Modules() string     { return filepath.Join(d.Path, "modules.ext4") }
func (d KernelDir) BootModules() string { return filepath.Join(d.Path, "boot-modules") } // directory of the .ko files that an initrd may need
func (d KernelDir) Manifest() string    { return filepath.Join(d.Path, "kernel.json") }

// Initrd is the cached initrd for a digest of its inputs.
func (d KernelDir) Initrd(digest string) string { return filepath.Join(d.Path, "initrd-"+digest) }

// VMDir is everything of one VM.
type VMDir struct{ Path string }

func (d VMDir) Disk() string          { return filepath.Join(d.Path, "disk.ext4") }
func (d VMDir) DiskManifest() string  { return filepath.Join(d.Path, "disk.json") }
func (d VMDir) MachineConfig() string { return filepath.Join(d.Path, "machine.json") } // what lifecycle tells banger-machine; 0600
func (d VMDir) Handles() string       { return filepath.Join(d.Path, "handles.json") } // process ids and start times
func (d VMDir) ExitRecord() string    { return filepath.Join(d.Path, "exit.json") }
func (d VMDir) ConsoleRing() string   { return filepath.Join(d.Path, "console.ring") }
func (d VMDir) NetworkLog() string    { return filepath.Join(d.Path, "network.ring") } // what the policy decided
func (d VMDir) MachineLog() string    { return filepath.Join(d.Path, "machine.log") }
func (d VMDir) UserKey() string       { return filepath.Join(d.Path, "user_key") }    // OpenSSH private key, 0600: how the host signs in
func (d VMDir) HostKey() string       { return filepath.Join(d.Path, "host_key") }    // OpenSSH private key, 0600: the guest's identity, pinned
func (d VMDir) KnownHosts() string    { return filepath.Join(d.Path, "known_hosts") } // the guest's public key, for OpenSSH's programs

// Workspace is what the host remembers of what went into the VM, by a name made of the guest path.
func (d VMDir) Workspace(guestPath string) string {
	return filepath.Join(d.Path, "workspace-"+nameOf(guestPath)+".json")
}

// Watch is what host and guest agreed on last about the files of a workspace.
func (d VMDir) Watch(guestPath string) string {
	return filepath.Join(d.Path, "watch-"+nameOf(guestPath)+".jsonl")
}

func nameOf(guestPath string) string {
	sum := sha256.Sum256([]byte(guestPath))
	return hex.EncodeToString(sum[:8])
}

// StartCommands is what the client runs in the VM after a start; 0600.
func (d VMDir) StartCommands() string { return filepath.Join(d.Path, "start-commands.json") }

// MachineSocket is where banger-machine answers; GuestSocket the channel into the guest by the vsock convention;
// GuestPortSocket what connections from the guest to a port reach.
func (d VMDir) MachineSocket() string { return filepath.Join(d.Path, "machine.sock") }
func (d VMDir) GuestSocket() string   { return filepath.Join(d.Path, "guest.sock") }
func (d VMDir) GuestPortSocket(port uint32) string {
	return fmt.Sprintf("%s_%d", d.GuestSocket(), port)
}

// Sockets that QEMU owns and listens on.
func (d VMDir) ChannelSocket() string { return filepath.Join(d.Path, "qemu-channel.sock") }
func (d VMDir) ConsoleSocket() string { return filepath.Join(d.Path, "qemu-console.sock") }
func (d VMDir) QMPSocket() string     { return filepath.Join(d.Path, "qemu-qmp.sock") }
func (d VMDir) NetworkSocket() string { return filepath.Join(d.Path, "qemu-network.sock") }
