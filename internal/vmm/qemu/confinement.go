package qemu

import (
	"path/filepath"

	"banger/internal/proc"
	"banger/internal/vmm"
)

// Confinement is all that QEMU may reach for a machine: its program, libraries and firmware, and the machine's files. It
// needs nothing in the VM's directory but the disk: its sockets are open when it starts.
func Confinement(spec vmm.Spec) proc.Confinement {
	c := programConfinement(spec.Program, spec.Accel)
	c.ReadOnly = append(c.ReadOnly, spec.Kernel, spec.Initrd)
	for _, d := range spec.Drives {
		if d.ReadOnly {
			c.ReadOnly = append(c.ReadOnly, d.Path)
		} else {
			c.ReadWrite = append(c.ReadWrite, d.Path)
		}
	}
	return c
}

// Confinement is what a supervisor must keep when it confines itself and starts spec by this driver afterwards: a process
// cannot grant more than it has. A supervisor that was confined may end a QEMU from before only with Signals.
func (d *Driver) Confinement(spec vmm.Spec) proc.Confinement {
	return Confinement(spec).Merge(proc.Confinement{Exec: []string{d.cfg.Shim}, Signals: true})
}

func programConfinement(program string, accel vmm.Accelerator) proc.Confinement {
	if path, err := proc.LookPath(program); err == nil {
		program = path
	}
	c := proc.Confinement{
		Exec:      []string{program, "/lib", "/lib32", "/lib64"},
		ReadOnly:  []string{"/etc/ld.so.cache", "/dev/urandom", "/sys/devices/system/cpu", "/sys/devices/system/node"},
		ReadWrite: []string{"/dev/null"},
		KeepFiles: fdEnd - fdQMP,
	}
	prefixes := []string{"/usr", "/usr/local"}
	if real, err := filepath.EvalSymlinks(program); err == nil {
		c.Exec = append(c.Exec, real)
		if prefix := filepath.Dir(filepath.Dir(real)); prefix != "/" && prefix != "/usr" && prefix != "/usr/local" {
			prefixes = append(prefixes, prefix)
		}
	}
	for _, prefix := range prefixes {
		c.Exec = append(c.Exec, prefix+"/lib", prefix+"/lib64")
		c.ReadOnly = append(c.ReadOnly, prefix+"/share/qemu", prefix+"/share/seabios", prefix+"/share/qemu-firmware")
	}
	if accel == vmm.KVM {
		c.ReadWrite = append(c.ReadWrite, "/dev/kvm")
	}
	return c
}
