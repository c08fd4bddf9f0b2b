package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/listening"
	"banger/internal/machine"
)

// vmPorts is one VM's answer, for programs.
type vmPorts struct {
	Name string `json:"name"` // of the VM
	machine.Ports
	HTTP string `json:"http,omitempty"` // where the HTTP entry of all VMs is
}

func (a *app) vmPorts() *cobra.Command {
	return &cobra.Command{
		Use: "ports VM...", Short: "show what listens in VMs and how to reach it", Args: someVMs,
		Long: `Every TCP port that a program in a VM listens on, with a way there. Each is opened now, on an address of this computer's loopback that
is the VM's alone; only this computer reaches it. For a port that stays, and for other computers: "vm run -p".`,
		Example:           "  banger vm ports devbox\n  banger vm run -p 8080:80 --name web\n  banger vm ports --json devbox",
		ValidArgsFunction: a.completeVMs(0, banger.StateRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			status, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			b, err := newBatch(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			list := []vmPorts{}
			var failed failures
			for i, target := range b.targets {
				ports, err := vmPorts{}, b.errs[i]
				if err == nil {
					ports, err = a.portsOf(cmd.Context(), c, string(target.ID))
				}
				if err != nil {
					failed = append(failed, err)
					continue
				}
				ports.HTTP = status.HTTP
				list = append(list, ports)
			}
			if err := a.printPorts(list); err != nil || failed == nil {
				return err
			}
			return failed
		},
	}
}

func (a *app) portsOf(ctx context.Context, c *client.Client, ref string) (vmPorts, error) {
	vm, err := c.ShowVM(ctx, ref)
	if err != nil {
		return vmPorts{}, err
	}
	name := vm.Spec.Name
	if vm.State != banger.StateRunning {
		return vmPorts{}, notRunning(name, vm.State)
	}
	ports, err := a.machine(vm).Ports(ctx, true)
	if err != nil {
		return vmPorts{}, &banger.Error{Op: "vm", Subject: name, Err: err}
	}
	for i := range ports.Listeners {
		nameOwner(ports.Listeners[i].Error, netip.AddrPortFrom(ports.Address, ports.Listeners[i].Port))
	}
	for i := range ports.Published {
		nameOwner(ports.Published[i].Error, ports.Published[i].Host)
	}
	return vmPorts{Name: name, Ports: ports}, nil
}

// nameOwner adds who has a port that is taken: we see more of this computer than the VM's supervisor does.
func nameOwner(body *banger.ErrorBody, at netip.AddrPort) {
	if body == nil || !errors.Is(body.Decode(), banger.ErrConflict) {
		return
	}
	if owner := listening.Owner(at.Addr(), at.Port()); owner != "" {
		body.Message += " by " + owner
	}
}

func (a *app) printPorts(list []vmPorts) error {
	if a.json {
		return a.printJSON(list)
	}
	rows := [][]string{{"VM", "PORT", "PROCESS", "LISTENS ON", "REACH IT AT"}}
	for _, vm := range list {
		for _, p := range vm.Listeners {
			process := p.Process
			if p.PID != 0 {
				process += " (" + strconv.Itoa(p.PID) + ")"
			}
			rows = append(rows, []string{vm.Name, strconv.Itoa(int(p.Port)), or(process, "-"), netip.AddrPortFrom(p.Address, p.Port).String(), vm.ways(p)})
		}
		for _, pin := range vm.Published {
			if pin.Error == nil && !slices.ContainsFunc(vm.Listeners, func(p machine.Port) bool { return p.Port == pin.Guest }) {
				rows = append(rows, []string{vm.Name, strconv.Itoa(int(pin.Guest)), "-", "nothing yet", pin.Host.String()})
			}
		}
	}
	if len(rows) > 1 {
		if err := table(a.Out, rows); err != nil {
			return err
		}
	}
	for _, vm := range list {
		if len(vm.Listeners) == 0 && len(vm.Published) == 0 {
			a.notice("nothing listens in %s", vm.Name)
		}
		for _, p := range vm.Listeners {
			a.explain(p.Error)
		}
		for _, p := range vm.Published {
			a.explain(p.Error)
		}
	}
	return nil
}

// ways says how a port can be reached: the pinned address, the VM's own, and the HTTP entry.
func (v vmPorts) ways(p machine.Port) string {
	var text string
	add := func(way string) {
		if text != "" {
			text += "  "
		}
		text += way
	}
	for _, pin := range v.Published {
		if pin.Guest == p.Port && pin.Error == nil {
			add(pin.Host.String())
		}
	}
	if p.Endpoint.IsValid() {
		add(p.Endpoint.String())
	}
	if v.HTTP != "" {
		if _, port, err := net.SplitHostPort(v.HTTP); err == nil {
			add(fmt.Sprintf("http://%d.%s.localhost:%s", p.Port, v.Name, port))
		}
	}
	return or(text, "-")
}

func (a *app) explain(body *banger.ErrorBody) {
	if body == nil {
		return
	}
	a.notice("%s", body.Message)
	if body.Hint != "" {
		a.notice("hint: %s", body.Hint)
	}
}
