package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/internal/egress"
	"banger/internal/machine"
)

// netFlags say what a new VM's network reaches.
type netFlags struct {
	net  netPolicy
	host []uint16
	nat  bool
	cmd  *cobra.Command
}

func (f *netFlags) add(cmd *cobra.Command) {
	f.cmd = cmd
	flags := cmd.Flags()
	flags.Var(&f.net, "net", "what its network reaches: full, none, allow=RULE,…: see vm net (default: as configured, else full)")
	flags.Var((*ports)(&f.host), "allow-host", "`PORT` on this computer's loopback address that the VM reaches as host.banger (repeatable)")
	flags.BoolVar(&f.nat, "nat", false, "the same as --net full")
	_ = cmd.RegisterFlagCompletionFunc("net", cobra.FixedCompletions([]cobra.Completion{"full", "none", "allow="}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	_ = cmd.RegisterFlagCompletionFunc("allow-host", cobra.NoFileCompletions)
}

// change is what the flags make of the daemon's default policy.
func (f *netFlags) change() (change banger.NetChange, err error) {
	change.Set = banger.NetPolicy(f.net)
	if f.nat {
		if change.Set.Given && !change.Set.Open {
			return change, &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("--nat and --net %s exclude each other", change.Set), Hint: "--nat is --net full"}
		}
		change.Set = change.Set.Or(banger.NetFull)
	}
	for _, port := range f.host {
		change.Allow = append(change.Allow, banger.NetRule{Host: true, Port: port}.String())
	}
	return change, nil
}

// netPolicy is a flag.
type netPolicy banger.NetPolicy

func (p *netPolicy) Set(text string) (err error) {
	policy, err := banger.ParseNetPolicy(text)
	*p = netPolicy(policy)
	return err
}

func (p *netPolicy) String() string { return banger.NetPolicy(*p).String() }
func (p *netPolicy) Type() string   { return "policy" }

// ports is a flag that may be given again.
type ports []uint16

func (p *ports) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("port %.20q: want 1 to 65535", text)
	}
	*p = append(*p, uint16(n))
	return nil
}

func (p *ports) String() string { return "" }
func (p *ports) Type() string   { return "port" }

// netVerbs are what "vm net NAME" does.
var netVerbs = []string{"show", "allow", "deny", "remove", "set", "log", "check"}

type netLogFlags struct{ follow, denied bool }

func (a *app) vmNet() *cobra.Command {
	var flags netLogFlags
	cmd := &cobra.Command{
		Use: "net VM [show | allow RULE... | deny RULE... | remove RULE... | set POLICY | log [flags] | check TARGET...]", Short: "what the network of a VM reaches, and did",
		Long: `A policy is "full" (the internet, never this computer and its own networks), "none", or "allow=RULE,…"; ",deny=RULE,…" may follow. Rules:

  github.com  github.com:443      a name, all its ports or one
  *.pypi.org                      every name below it
  10.0.0.0/8:5432  203.0.113.7    addresses; private ones and those of this computer's own networks need such a rule
  vm:db:5432                      another VM, as db.vm
  host:8080                       a port on this computer's loopback address, as host.banger

A change holds at once, also for a VM that runs: connections that are not allowed any more end. "log" shows connections and refusals,
"check" tells what would become of one.`,
		Example: `  banger vm net devbox                                 what it may reach
  banger vm net devbox set allow=github.com,*.pypi.org
  banger vm net devbox allow 10.0.0.0/8:5432
  banger vm net devbox log --follow --denied
  banger vm net devbox check https://example.org`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return inputError(cmd, "want the name of a VM")
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return netVerbs, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeVMs(1)(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			verb := "show"
			if len(args) > 1 {
				verb = args[1]
			}
			return a.net(cmd, args[0], verb, args[min(2, len(args)):], flags)
		},
	}
	cmd.Flags().BoolVarP(&flags.follow, "follow", "f", false, "log: go on until the VM ends")
	cmd.Flags().BoolVar(&flags.denied, "denied", false, "log: only what was refused")
	return cmd
}

func (a *app) net(cmd *cobra.Command, vm, verb string, rest []string, flags netLogFlags) error {
	if verb != "log" && (flags.follow || flags.denied) {
		return inputError(cmd, "--follow and --denied are for log")
	}
	switch verb {
	case "show", "log":
		if len(rest) > 0 {
			return inputError(cmd, "%s takes no argument, got %q", verb, rest[0])
		}
		if verb == "log" {
			return a.netLog(cmd.Context(), vm, flags)
		}
		return a.netShow(cmd.Context(), vm)
	case "allow", "deny", "remove", "set", "check":
		if len(rest) == 0 || verb == "set" && len(rest) > 1 {
			return inputError(cmd, "%s wants %s, got %d arguments", verb, or(map[string]string{"set": "one policy", "check": "a target"}[verb], "a rule"), len(rest))
		}
	default:
		return &banger.Error{Kind: banger.ErrInvalid, Op: "vm net", Err: fmt.Errorf("there is no %q", verb), Hint: or(didYouMean(verb, netVerbs, "banger vm net "+vm+" "), "usage: "+cmd.UseLine())}
	}
	var change banger.NetChange
	switch verb {
	case "check":
		return a.netCheck(cmd.Context(), vm, rest)
	case "allow":
		change.Allow = rest
	case "deny":
		change.Deny = rest
	case "remove":
		change.Remove = rest
	case "set":
		policy, err := banger.ParseNetPolicy(rest[0])
		if err != nil {
			return err
		}
		change.Set = policy
	}
	for _, rule := range append(append(append([]string(nil), change.Allow...), change.Deny...), change.Remove...) {
		if _, err := banger.ParseNetRule(rule); err != nil {
			return err
		}
	}
	return a.netChange(cmd.Context(), vm, change)
}

func (a *app) netChange(ctx context.Context, ref string, change banger.NetChange) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	vm, err := c.SetNet(ctx, ref, change)
	if err != nil {
		return err
	}
	return a.printPolicy(vm.Spec.Net)
}

func (a *app) netShow(ctx context.Context, ref string) error {
	detail, err := a.show(ctx, ref)
	if err != nil {
		return err
	}
	return a.printPolicy(detail.Spec.Net.Or(banger.NetFull))
}

// netShown is a policy, and the same in its parts.
type netShown struct {
	Policy   banger.NetPolicy `json:"policy"`   // in one text, as --net reads it
	Internet bool             `json:"internet"` // all of it may be reached, but for what is denied
	Allow    []string         `json:"allow"`    // targets, as --allow reads them; empty: none is named
	Deny     []string         `json:"deny"`     // targets, which go before Allow; empty: none is named
}

func (a *app) printPolicy(p banger.NetPolicy) error {
	if a.json {
		rules := func(list []banger.NetRule) []string {
			texts := make([]string, 0, len(list))
			for _, r := range list {
				texts = append(texts, r.String())
			}
			return texts
		}
		return a.printJSON(netShown{p, p.Open, rules(p.Allow), rules(p.Deny)})
	}
	_, err := fmt.Fprintln(a.Out, p)
	return err
}

// netLog shows each event on a line, as JSON if asked.
func (a *app) netLog(ctx context.Context, ref string, flags netLogFlags) error {
	detail, err := a.show(ctx, ref)
	if err != nil {
		return err
	}
	return machine.Client{Socket: detail.MachineSocket}.NetLog(ctx, flags.follow, func(e banger.NetEvent) error {
		if flags.denied && e.Verdict != banger.NetDenied {
			return nil
		}
		if a.json {
			return a.printLine(e)
		}
		_, err := fmt.Fprintln(a.Out, eventText(e))
		return err
	})
}

// eventText is one line: "12:04:05 denied tcp evil.example:443 (198.51.100.7): no rule allows it".
func eventText(e banger.NetEvent) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-7s %-4s %s", e.Time.Local().Format(time.TimeOnly), e.Verdict, e.Proto, e.Target())
	if e.Name != "" && e.Addr != "" {
		fmt.Fprintf(&b, " (%s)", e.Addr)
	}
	if e.Verdict == banger.NetClosed {
		fmt.Fprintf(&b, ", sent %s, received %s in %s", banger.FormatSize(e.Sent), banger.FormatSize(e.Received), seconds(e.Elapsed))
	}
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	line := escape(b.String())
	if e.Lost > 0 {
		line = fmt.Sprintf("(%d events were too many to be kept)\n", e.Lost) + line
	}
	return line
}

// checkResult is the decision on one target.
type checkResult struct {
	Target  string       `json:"target"`              // as it was given
	Allowed bool         `json:"allowed"`             // a name is resolved on this computer first, and each address is judged, too
	Reason  string       `json:"reason,omitempty"`    // why not; absent: it is allowed
	Addrs   []netip.Addr `json:"addresses,omitempty"` // that would be used
}

// netCheck judges targets as the VM's machine would, on this computer. Nothing is connected to; names are looked up.
func (a *app) netCheck(ctx context.Context, ref string, targets []string) error {
	detail, err := a.show(ctx, ref)
	if err != nil {
		return err
	}
	results, err := checkTargets(ctx, detail.Spec.Net, targets)
	if err != nil {
		return err
	}
	if err := a.printChecks(results); err != nil {
		return err
	}
	if slices.ContainsFunc(results, func(r checkResult) bool { return !r.Allowed }) {
		return commandExit{status: statusRefused}
	}
	return nil
}

func checkTargets(ctx context.Context, net banger.NetPolicy, targets []string) (results []checkResult, err error) {
	host, err := egress.ReadHost()
	if err != nil {
		return nil, err
	}
	policy := egress.Policy{NetPolicy: net.Or(banger.NetFull)}
	for _, text := range targets {
		name, port, err := parseTarget(text)
		if err != nil {
			return nil, err
		}
		result := checkTarget(ctx, policy, host, name, port)
		result.Target = text
		results = append(results, result)
	}
	return results, nil
}

func (a *app) printChecks(results []checkResult) error {
	if a.json {
		return a.printJSON(results)
	}
	for _, r := range results {
		line := "allowed  " + r.Target
		if !r.Allowed {
			line = "denied   " + r.Target + ": " + r.Reason
		}
		if _, err := fmt.Fprintln(a.Out, escape(line)); err != nil {
			return err
		}
	}
	return nil
}

// parseTarget reads "https://host[:port]/…", "host:port" or "host"; port 0 is any.
func parseTarget(text string) (name string, port uint16, err error) {
	fail := func() (string, uint16, error) {
		return "", 0, &banger.Error{Kind: banger.ErrInvalid, Op: "vm net check", Err: fmt.Errorf("%.100q: want a URL, HOST or HOST:PORT", text)}
	}
	hostPort := text
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" {
			return fail()
		}
		known := map[string]string{"http": "80", "https": "443", "ssh": "22", "git": "9418", "ws": "80", "wss": "443", "ftp": "21"}[u.Scheme]
		if hostPort = u.Hostname(); u.Port() != "" || known != "" {
			hostPort = net.JoinHostPort(u.Hostname(), or(u.Port(), known))
		}
	}
	if _, err := netip.ParseAddr(hostPort); err == nil {
		return hostPort, 0, nil
	}
	if !strings.Contains(hostPort, ":") {
		hostPort += ":0"
	}
	name, portText, err := net.SplitHostPort(hostPort)
	n, portErr := strconv.ParseUint(portText, 10, 16)
	if err != nil || portErr != nil || name == "" {
		return fail()
	}
	return name, uint16(n), nil
}

// checkTarget judges one target.
func checkTarget(ctx context.Context, policy egress.Policy, host egress.Host, name string, port uint16) checkResult {
	result := func(v egress.Verdict, addrs ...netip.Addr) checkResult {
		return checkResult{Allowed: v.Allowed, Reason: v.Reason, Addrs: addrs}
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return result(policy.Addr(addr, port, host), addr)
	}
	name = egress.CleanName(name)
	if name == egress.HostName {
		return result(policy.HostPort(port))
	}
	if vm, ok := strings.CutSuffix(name, egress.VMSuffix); ok {
		return result(policy.VM(vm, port))
	}
	if v := policy.Name(name, port); !v.Allowed {
		return result(v)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			err = errors.New(dns.Err)
		}
		return checkResult{Reason: "allowed, but its name is not resolved: " + err.Error()}
	}
	var last egress.Verdict
	var reachable []netip.Addr
	for _, addr := range addrs {
		if v := policy.Resolved(addr, port, host); v.Allowed {
			reachable = append(reachable, addr.Unmap())
		} else {
			last = v
		}
	}
	if len(reachable) == 0 {
		return result(last)
	}
	return result(egress.Verdict{Allowed: true}, reachable...)
}

// netRow is the policy in "vm show".
func netRow(d api.VMDetail) []string {
	return []string{"network", d.Spec.Net.Or(banger.NetFull).String()}
}
