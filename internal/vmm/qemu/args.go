package qemu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"banger/internal/vmm"
)

// Descriptors of the listening sockets, in the order of the process's extra files.
const (
	fdQMP = 3 + iota
	fdConsole
	fdChannel
	fdNetwork
	fdEnd
)

// channelPort is the name of the virtio-serial port that carries the guest channel.
const channelPort = "banger.channel"

// sandbox is QEMU's own seccomp filter, with all that it can deny.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// Args is QEMU's command line for a machine. The sockets are descriptors, so that they listen before QEMU runs. The
// guest's processors do not run before a "cont".
func Args(spec vmm.Spec) []string {
	args := []string{
		"-name", "banger-" + string(spec.ID),
		"-machine", "microvm,acpi=on,dump-guest-core=off",
	}
	args = append(args, accelArgs(spec)...)
	args = append(args,
		"-smp", strconv.Itoa(spec.VCPU),
		"-m", strconv.Itoa(spec.MemoryMiB)+"M",
		"-nodefaults", "-no-user-config", "-display", "none",
		"-S", "-no-reboot",
		"-action", "panic=exit-failure,reboot=shutdown",
		"-sandbox", sandbox,
		"-kernel", spec.Kernel,
		"-initrd", spec.Initrd,
		"-append", strings.Join(BootArgs(spec), " "),
		"-chardev", socket("qmp", fdQMP), "-mon", "chardev=qmp,mode=control",
		"-chardev", socket("console", fdConsole), "-serial", "chardev:console",
		"-device", "virtio-serial-device,max_ports=2",
		"-chardev", socket("channel", fdChannel), "-device", "virtserialport,chardev=channel,name="+channelPort,
	)
	args = append(args,
		"-netdev", fmt.Sprintf("stream,id=net,server=on,addr.type=fd,addr.str=%d", fdNetwork),
		"-device", fmt.Sprintf("virtio-net-device,netdev=net,mac=%s,host_mtu=%d", vmm.MAC(spec.ID), spec.MTU),
	)
	for i, drive := range spec.Drives {
		args = append(args, driveArgs(i, drive)...)
	}
	return append(args,
		"-device", "virtio-balloon-device,free-page-reporting=on,deflate-on-oom=on",
		"-device", "virtio-rng-device",
		"-device", "pvpanic",
	)
}

func accelArgs(spec vmm.Spec) []string {
	if spec.Accel == vmm.KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// Where a processor says that it moves bytes fast (ERMS, FSRM), kernel and C library copy one at a time, which emulation takes literally.
	return []string{"-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max,-erms,-fsrm"}
}

func socket(id string, fd int) string {
	return fmt.Sprintf("socket,id=%s,fd=%d,server=on,wait=off", id, fd)
}

func driveArgs(i int, d vmm.Drive) []string {
	drive := fmt.Sprintf("if=none,id=drive%d,file=%s,format=raw,", i, escape(d.Path))
	if d.ReadOnly {
		drive += "readonly=on"
	} else {
		drive += "cache=writeback,discard=unmap,detect-zeroes=unmap"
	}
	return []string{"-drive", drive, "-device", fmt.Sprintf("virtio-blk-device,drive=drive%d,serial=%s", i, escape(d.Serial))}
}

// escape protects a value inside an option: QEMU reads two commas as one.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// BootArgs is the guest's kernel command line. Under TCG the guest is told the frequency of its time stamp counter: the
// microvm has no clock to calibrate it by, and a boot that tries hangs at random. The host's own mitigations cover
// emulation, so the guest's are off there.
func BootArgs(spec vmm.Spec) []string {
	args := []string{"console=ttyS0", "quiet", "panic=-1", "reboot=t"}
	if spec.Accel == vmm.TCG {
		if spec.TSCKHz != 0 {
			args = append(args, fmt.Sprintf("tsc_early_khz=%d", spec.TSCKHz), "tsc=reliable")
		}
		args = append(args, "no_timer_check", "cryptomgr.notests", "mitigations=off")
	}
	return slices.Concat(args, spec.BootArgs)
}
