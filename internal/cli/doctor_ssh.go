package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"banger"
	"banger/internal/fence"
	"banger/internal/hostcheck"
	"banger/internal/proc"
	"banger/internal/statedir"
)

const sshSetup = "banger ssh-config --install"

// hostSSH is what the check of ssh asks.
type hostSSH struct {
	path     string   // the user's file
	own      string   // banger's
	vms      []string // names of VMs that can be reached, or could if they ran
	settings func(ctx context.Context, host string) (string, error)
}

// sshCheck has OpenSSH's client tell how it would reach a VM.
func (a *app) sshCheck(ctx context.Context) hostcheck.Check {
	broken := func(err error) hostcheck.Check {
		return hostcheck.Check{Name: "ssh", Status: hostcheck.Fail, Details: err.Error(), Hint: banger.HintOf(err)}
	}
	path, err := userSSHConfig()
	if err != nil {
		return broken(err)
	}
	dir, err := statedir.Locate()
	if err != nil {
		return broken(err)
	}
	host := hostSSH{path: path, own: dir.SSHConfig(), settings: sshSettings}
	if c, err := a.dialExisting(ctx); err == nil {
		defer c.Close()
		vms, err := c.ListVMs(ctx)
		if err != nil {
			return broken(err)
		}
		for _, vm := range vms {
			if vm.State == banger.StateRunning || vm.State == banger.StateStopped {
				host.vms = append(host.vms, vm.Spec.Name)
			}
		}
	}
	return host.check(ctx)
}

func (s hostSSH) check(ctx context.Context) hostcheck.Check {
	row := func(status hostcheck.Status, hint, format string, args ...any) hostcheck.Check {
		return hostcheck.Check{Name: "ssh", Status: status, Details: fmt.Sprintf(format, args...), Hint: hint}
	}
	line, err := includeLine(s.own)
	if err != nil {
		return row(hostcheck.Fail, banger.HintOf(err), "%v", err)
	}
	text, included, err := readSSHConfig(s.path, line)
	if err != nil {
		return row(hostcheck.Fail, "make it readable for yourself: chmod u+r "+s.path, "%v", err)
	}
	refused := fence.Check(s.path)
	switch {
	case !included && refused != nil:
		return row(hostcheck.Warn, "put this line at its beginning yourself: "+line, "%v", refused)
	case !included && fence.Has(text):
		return row(hostcheck.Warn, sshSetup, "%s includes the VMs of another state directory, not %s", s.path, s.own)
	case !included:
		return row(hostcheck.Pass, sshSetup, "%s does not include banger's file yet: ssh NAME.vm is not known", s.path)
	}
	known, err := os.ReadFile(s.own)
	if err != nil {
		return row(hostcheck.Fail, "banger daemon stop; the next start writes it", "%s includes a file that can't be read: %v", s.path, err)
	}
	for _, name := range s.vms {
		if !strings.Contains(string(known), "\nHost "+name+hostSuffix+"\n") {
			return row(hostcheck.Fail, "banger daemon stop; the next start writes it", "%s does not know %s%s", s.own, name, hostSuffix)
		}
	}
	host := append(s.vms, "devbox")[0] + hostSuffix // what holds for all VMs is told for one that is not there, too
	settings, err := s.settings(ctx, host)
	if err != nil {
		return row(hostcheck.Fail, cmp.Or(banger.HintOf(err), "repair what ssh names, such as: chmod 600 "+s.path), "%v", err)
	}
	if !strings.Contains(settings, "ssh-proxy") {
		return row(hostcheck.Fail, "banger ssh-config --uninstall && "+sshSetup, "ssh %s takes other settings than banger's: its lines belong at the beginning of %s", host, s.path)
	}
	return row(hostcheck.Pass, "", "ssh NAME.vm works: %s includes %s, %d VMs", s.path, s.own, len(s.vms))
}

// sshSettings are what OpenSSH's client takes for a host. Errors: ErrUnavailable when it is not installed.
func sshSettings(ctx context.Context, host string) (string, error) {
	var out bytes.Buffer
	err := proc.Run(ctx, proc.Command{Path: "ssh", Args: []string{"-G", host}, Stdout: &out})
	return out.String(), err
}
