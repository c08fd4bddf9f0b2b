// Command init is the first process of the guest in TestBoot: it loads the modules of its initrd, mounts the modules' drive, loads
// one more module from there with all that it needs, tells the console and powers off.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Println("TEST failed:", err)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs", "/m": ""} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if kind == "" {
			continue
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
			return err
		}
	}
	fmt.Println("TEST boot modules loaded:", len(strings.Fields(string(order))))
	device, err := find("modules")
	if err != nil {
		return err
	}
	if err := unix.Mount(device, "/m", "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return probe("nf_conntrack_ftp")
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

func find(serial string) (string, error) {
	for start := time.Now(); time.Since(start) < patience; time.Sleep(5 * time.Millisecond) {
		files, _ := filepath.Glob("/sys/block/*/serial")
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == serial {
				return "/dev/" + filepath.Base(filepath.Dir(file)), nil
			}
		}
	}
	return "", fmt.Errorf("no drive %s", serial)
}

// probe loads a module by modules.dep.
func probe(name string) error {
	index, err := os.ReadFile("/m/modules.dep")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(index), "\n") {
		file, rest, _ := strings.Cut(line, ":")
		if filepath.Base(file) != name+".ko" {
			continue
		}
		needs := strings.Fields(rest)
		for i := range needs {
			if err := load("/m/" + needs[len(needs)-1-i]); err != nil {
				return err
			}
		}
		if err := load("/m/" + file); err != nil {
			return err
		}
		fmt.Println("TEST loaded", name, "after", len(needs))
		return nil
	}
	return fmt.Errorf("modules.dep has no %s", name)
}
