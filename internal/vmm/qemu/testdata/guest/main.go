// Command guest is the first process of the guest that the contract suite talks to: it loads the modules of its initrd and
// serves the channel until it is told how to end.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vmm/vmmtest"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("the test guest failed:", err)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		if err := load("/modules/" + name); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	port, err := openPort("banger.channel")
	if err != nil {
		return err
	}
	drives, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return err
	}
	for _, path := range drives {
		serial, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		readOnly, err := os.ReadFile(filepath.Join(filepath.Dir(path), "ro"))
		if err != nil {
			return err
		}
		fmt.Printf("drive %s ro=%s", strings.TrimSpace(string(serial)), readOnly)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	fmt.Println(vmmtest.Greeting)
	guest := vmmtest.Guest{
		Print:    func(text string) { fmt.Println(text) },
		PowerOff: func() { unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) },
		Reboot:   func() { unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) },
		Panic:    func() { os.Exit(1) }, // the end of process 1 is a panic
		Card:     openCard,
	}
	for {
		// Reads of a port without a host end at once; a blocking write waits for the host.
		if err := unix.SetNonblock(port, false); err != nil {
			return err
		}
		if _, err := unix.Write(port, []byte{'\n'}); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the host: %w", err)
		}
		fd, err := unix.Dup(port) // closing the last descriptor would lose what the host has sent
		if err != nil {
			return err
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		guest.Serve(os.NewFile(uintptr(fd), "channel"))
	}
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

func openPort(name string) (int, error) {
	const patience = 20 * time.Second
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return 0, err
		}
		for _, path := range names {
			found, err := os.ReadFile(path)
			if err != nil || strings.TrimSpace(string(found)) != name {
				continue
			}
			if fd, err := unix.Open("/dev/"+filepath.Base(filepath.Dir(path)), unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
				return fd, nil
			}
		}
	}
	return 0, fmt.Errorf("no port named %s", name)
}

// openCard raises the network card and gives its frames.
func openCard() (io.ReadWriteCloser, error) {
	cards, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil || len(cards) != 1 {
		return nil, fmt.Errorf("network cards %q, %w", cards, err)
	}
	name := filepath.Base(filepath.Dir(cards[0]))
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	flags, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	flags.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, flags); err != nil {
		return nil, fmt.Errorf("raise %s: %w", name, err)
	}
	index, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, index)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(index.Uint32())})
	}
	return os.NewFile(uintptr(fd), name), err
}
