package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// emulator runs programs for arm64 here.
const emulator = "qemu-aarch64-static"

// notOnARM64 are packages, and tests of others, that an emulator of programs can't run, each with its reason. They are vetted for arm64 all the
// same.
var notOnARM64 = map[string]string{
	"banger/test/smoke":          "starts VMs, which are for amd64",
	"banger/test/dist":           "starts VMs, which are for amd64",
	"banger/internal/vmm/qemu":   "starts VMs, which are for amd64",
	"banger/internal/lifecycle":  "starts VMs, which are for amd64",
	"banger/client":              startsPrograms,
	"banger/cmd/bangerd":         startsPrograms,
	"banger/cmd/banger-machine":  startsPrograms,
	"banger/internal/guest":      startsPrograms,
	"banger/internal/image":      startsPrograms,
	"banger/internal/kernel":     startsPrograms,
	"banger/internal/netstack":   startsPrograms,
	"banger/internal/proc":       startsPrograms,
	"banger/internal/twoway":     startsPrograms,
	"banger/internal/workspace":  startsPrograms,
	"banger/test/script":         startsPrograms,
	"banger/internal/ext4/write": "traces programs",
	"banger/internal/filesync":   openat2,
	"banger/internal/guestagent": openat2,
	"banger/internal/project":    openat2,
	"banger/internal/transfer":   openat2,

	"banger/internal/supervisor": seesEmulator,

	"banger/internal/cli TestConsentOnATerminal":          openat2,
	"banger/internal/cli TestWishBesideFlags":             openat2,
	"banger/internal/cli TestGetentBesideASilentResolver": startsPrograms,
	"banger/internal/disk TestFSAgainstTheKernel":         openat2,
	"banger/internal/disk TestFSAgainstTheKernelAtRandom": openat2,
	"banger/internal/listening TestOwner":                 seesEmulator,

	"banger/internal/channel": "its stress of SSH's loops takes ten minutes when it is emulated",
}

const (
	startsPrograms = "starts programs for arm64, which the kernel here can't"
	seesEmulator   = "looks at processes, and finds the emulator in place of the program"
	openat2        = "opens files by openat2, which QEMU's emulator of programs lacks"
)

// arm64 vets everything for arm64 and runs what tests it can.
func (r *report) arm64() error {
	if err := os.Setenv("GOARCH", "arm64"); err != nil {
		return err
	}
	r.check("vet for arm64", func() (string, error) { return command("go", "vet", "./...") })
	list, err := command("go", "list", "./...")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, list)
	}
	var packages, tests []string
	for _, name := range slices.Sorted(maps.Keys(notOnARM64)) {
		if _, test, ok := strings.Cut(name, " "); ok {
			r.skips = append(r.skips, name+": "+notOnARM64[name])
			tests = append(tests, test)
		}
	}
	for _, name := range strings.Fields(list) {
		if reason := notOnARM64[name]; reason != "" {
			r.skips = append(r.skips, name+": "+reason)
			continue
		}
		packages = append(packages, name)
	}
	return r.test(append([]string{"-exec", emulator, "-timeout", "20m", "-skip", "^(" + strings.Join(tests, "|") + ")$"}, packages...)...)
}
