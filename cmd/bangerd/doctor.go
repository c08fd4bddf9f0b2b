package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"time"

	"banger/internal/doctor"
	"banger/internal/hostcheck"
	"banger/internal/proc"
	"banger/internal/vmm/qemu"
)

// doctor prints a report. It is here and not in the client since only this program knows how all is kept.
func (m *Main) doctor(ctx context.Context) error {
	host, err := hostcheck.NewHost()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	host.Version = programVersion
	host.Built, _ = time.Parse(time.RFC3339, built) // the zero value: not known
	host.KVM = func(ctx context.Context) (bool, string, string, error) {
		verdict, err := qemu.ProbeKVM(ctx, qemu.ProbeConfig{Program: qemu.Program, Shim: self})
		return verdict.Works, verdict.Reason, verdict.Hint, err
	}
	report := doctor.Examine(ctx, doctor.Config{Dir: m.dir, Host: host, Fix: m.fix})
	return json.NewEncoder(m.Stdout).Encode(report)
}

// programVersion is the first line of what a program says to --version.
func programVersion(ctx context.Context, path string) (string, error) {
	var out bytes.Buffer
	err := proc.Run(ctx, proc.Command{Path: path, Args: []string{"--version"}, Stdout: &out})
	line, _, _ := strings.Cut(out.String(), "\n")
	return line, err
}
