package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"banger"
	"banger/internal/dns"
	"banger/internal/hostcheck"
	"banger/internal/listening"
	"banger/internal/proc"
	"banger/internal/resolver"
)

const dnsSetup = "banger dns setup --install"

// hostNames is what the check of names asks.
type hostNames struct {
	root   string          // of the computer's files
	server netip.AddrPort  // where the daemon answers; the zero value: nowhere
	hosts  []resolver.Host // the VMs that run
	owner  func(netip.Addr, uint16) string
	getent func(ctx context.Context, name string) (addresses []string, err error)
}

// namesCheck asks this computer for the name of a VM that runs, as any program does.
func (a *app) namesCheck(ctx context.Context) hostcheck.Check {
	check := hostcheck.Check{Name: "names", Status: hostcheck.Pass, Details: "NAME.vm is answered while the daemon runs"}
	c, err := a.dialExisting(ctx)
	if err != nil {
		return check
	}
	defer c.Close()
	status, hosts, err := namesOf(ctx, c)
	if err != nil {
		check.Status, check.Details, check.Hint = hostcheck.Fail, err.Error(), banger.HintOf(err)
		return check
	}
	if status.DNS == "" {
		check.Status, check.Details, check.Hint = hostcheck.Warn, "the daemon could not listen: nobody answers for NAME.vm", "see why in "+status.Log+", then: banger daemon stop"
		return check
	}
	server, err := netip.ParseAddrPort(status.DNS)
	if err != nil {
		check.Status, check.Details, check.Hint = hostcheck.Fail, err.Error(), "banger daemon stop"
		return check
	}
	return hostNames{"/", server, hosts, listening.Owner, getent}.check(ctx)
}

func (n hostNames) check(ctx context.Context) hostcheck.Check {
	row := func(status hostcheck.Status, hint, format string, args ...any) hostcheck.Check {
		return hostcheck.Check{Name: "names", Status: status, Details: fmt.Sprintf(format, args...), Hint: hint}
	}
	taken := ""
	if n.server.Port() != dns.DefaultPort {
		taken = fmt.Sprintf("port %d was taken", dns.DefaultPort)
		if owner := n.owner(n.server.Addr(), dns.DefaultPort); owner != "" {
			taken += " by " + owner
		}
		taken += fmt.Sprintf(": NAME.vm is answered on %s, until the daemon restarts", n.server)
	}
	plan, current, err := resolver.Installed(n.root, n.server)
	switch {
	case errors.Is(err, banger.ErrNotFound) && taken != "":
		return row(hostcheck.Warn, "end what has the port, then: banger daemon stop", "%s", taken)
	case errors.Is(err, banger.ErrNotFound):
		return row(hostcheck.Pass, dnsSetup, "NAME.vm is answered on %s, where this computer's programs do not ask yet", n.server)
	case err != nil:
		return row(hostcheck.Fail, banger.HintOf(err), "%v", err)
	case !current && taken != "":
		return row(hostcheck.Warn, "end what has the port, then: banger daemon stop; or: "+dnsSetup, "%s; %s leads elsewhere", taken, plan.File)
	case !current:
		return row(hostcheck.Warn, dnsSetup, "%s does not lead to %s, where NAME.vm is answered", plan.File, n.server)
	case len(n.hosts) == 0:
		return row(hostcheck.Pass, "", "%s leads to %s; it shows when a VM runs", plan.File, n.server)
	}
	at := slices.IndexFunc(n.hosts, func(h resolver.Host) bool { return plan.Has(h.Name) })
	if at < 0 { // a resolver that answers nothing keeps whoever asks for it waiting
		return row(hostcheck.Pass, dnsSetup, "%s has the VMs that ran at the set-up, none of which runs now: there is no name to try", plan.File)
	}
	host := n.hosts[at]
	name := host.Name + hostSuffix
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addresses, err := n.getent(ctx, name)
	hint := dnsSetup
	if len(plan.Commands) > 0 {
		hint = "sudo " + plan.Commands[0]
	}
	switch {
	case errors.Is(err, banger.ErrUnavailable): // no getent
		return row(hostcheck.Warn, banger.HintOf(err), "%v", err)
	case err != nil:
		return row(hostcheck.Fail, hint, "%s does not resolve, although %s is there: %v", name, plan.File, err)
	case !slices.Contains(addresses, host.Address.String()):
		return row(hostcheck.Fail, hint, "%s resolves to %s, want %s", name, strings.Join(addresses, ", "), host.Address)
	}
	return row(hostcheck.Pass, "", "%s resolves to %s by %s", name, host.Address, plan.Method)
}

// getent asks as the computer's programs ask: by nsswitch.conf, for addresses of both kinds at once. ("getent hosts" wants one of IPv6 from
// everybody first, and waits ten seconds for a resolver that says nothing, although /etc/hosts has another.) Errors: ErrUnavailable when it
// is not installed.
func getent(ctx context.Context, name string) (addresses []string, err error) {
	var out bytes.Buffer
	if err := proc.Run(ctx, proc.Command{Path: "getent", Args: []string{"ahosts", name}, Stdout: &out}); err != nil {
		return nil, err
	}
	for line := range strings.Lines(out.String()) {
		text, _, _ := strings.Cut(line, " ")
		address, err := netip.ParseAddr(text)
		if text = address.Unmap().String(); err == nil && !slices.Contains(addresses, text) { // there is a line for each type of socket
			addresses = append(addresses, text)
		}
	}
	return addresses, nil
}
