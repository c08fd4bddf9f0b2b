package main

import (
	"fmt"
	"os"
	"strings"
)

// emulator runs programs for arm64 here.
const emulator = "qemu-aarch64-static"

// notOnARM64 are packages whose tests an emulator of programs can't run, each with its reason. They are vetted for arm64 all the same.
var notOnARM64 = map[string]string{
	"banger/test/smoke": "starts VMs",
}

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
	var packages []string
	for _, name := range strings.Fields(list) {
		if reason := notOnARM64[name]; reason != "" {
			r.skips = append(r.skips, name+": "+reason)
			continue
		}
		packages = append(packages, name)
	}
	return r.test(append([]string{"-exec", emulator, "-timeout", "20m"}, packages...)...)
}
