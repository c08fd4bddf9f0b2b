package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"banger"
)

// packages name the package of a program by package manager; an absent one has the program's own name.
var packages = map[string]map[string]string{
	"apt-get": {
		"qemu-system-x86_64": "qemu-system-x86", "newuidmap": "uidmap", "newgidmap": "uidmap", "ssh": "openssh-client",
		"ssh-keygen": "openssh-client", "apt-get": "apt", "dpkg-deb": "dpkg",
	},
	"dnf": {
		"qemu-system-x86_64": "qemu-system-x86", "newuidmap": "shadow-utils", "newgidmap": "shadow-utils",
		"ssh": "openssh-clients", "ssh-keygen": "openssh", "apt-get": "apt", "dpkg-deb": "dpkg",
	},
	"pacman": {
		"qemu-system-x86_64": "qemu-system-x86", "newuidmap": "shadow", "newgidmap": "shadow", "ssh": "openssh",
		"ssh-keygen": "openssh", "apt-get": "apt", "dpkg-deb": "dpkg",
	},
}

var installCommands = map[string]string{
	"apt-get": "sudo apt-get install --no-install-recommends ",
	"dnf":     "sudo dnf install ",
	"pacman":  "sudo pacman -S ",
}

// managers map the ids of os-release(5) to package managers.
var managers = map[string]string{
	"debian": "apt-get", "ubuntu": "apt-get", "fedora": "dnf", "rhel": "dnf", "centos": "dnf", "arch": "pacman", "archlinux": "pacman",
}

// LookPath finds a program as a shell would. Errors: ErrUnavailable with a hint how to install it.
func LookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil || errors.Is(err, exec.ErrDot) {
		return path, err
	}
	return "", &banger.Error{Kind: banger.ErrUnavailable, Op: "find program", Subject: program,
		Err: errors.New("it is not installed"), Hint: InstallHint(program)}
}

// InstallHint says how this distribution installs a program.
func InstallHint(program string) string {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		release, _ = os.ReadFile("/usr/lib/os-release")
	}
	return installHint(program, release)
}

func installHint(program string, release []byte) string {
	for _, id := range releaseIDs(release) {
		manager, ok := managers[id]
		if !ok {
			continue
		}
		name := packages[manager][program]
		if name == "" {
			name = program
		}
		return "install it: " + installCommands[manager] + name
	}
	return fmt.Sprintf("install the package that has %s", program)
}

// releaseIDs are ID and then the words of ID_LIKE.
func releaseIDs(release []byte) []string {
	var id, like string
	for s := bufio.NewScanner(bytes.NewReader(release)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), "=")
		value = strings.Trim(value, `"'`)
		switch name {
		case "ID":
			id = value
		case "ID_LIKE":
			like = value
		}
	}
	return append([]string{id}, strings.Fields(like)...)
}
