package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/resolver"
)

// resolveTimeout bounds the look-up that shows whether a set-up works.
const (
	resolveTimeout = 5 * time.Second
	resolvePause   = 200 * time.Millisecond
)

func (a *app) dnsGroup() *cobra.Command {
	return a.group("dns", "names of VMs for this computer's programs", `
The background process answers for NAME.vm: the address is on this computer's loopback, where the VM's ports are opened when its name is
looked up. "dns setup" makes this computer's programs ask there.`, `
  banger dns setup                             what this computer needs
  banger dns setup --install                   do it (asks for root by sudo)
  curl http://devbox.vm:3000`,
		a.dnsSetup())
}

type dnsFlags struct {
	install, uninstall bool
	method             string
	server             string
	hosts              []string
}

func (a *app) dnsSetup() *cobra.Command {
	var flags dnsFlags
	cmd := &cobra.Command{
		Use: "setup [flags]", Short: "let this computer's programs find VMs as NAME.vm", Args: noArgs,
		Long: `Alone it prints what a root shell has to do on this computer: one file for systemd-resolved, NetworkManager or dnsmasq, or lines in
/etc/hosts where there is none of them. --install does that, --uninstall takes it back. Nothing else is touched.`,
		Example: "  banger dns setup\n  banger dns setup --install\n  banger dns setup --for dnsmasq",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.install && flags.uninstall {
				return inputError(cmd, "--install and --uninstall exclude each other")
			}
			if flags.uninstall {
				return a.asRoot(cmd.Context(), []string{"dns", "setup", "--uninstall"}, func(ctx context.Context) error {
					return resolver.Uninstall(ctx, "/", runProgram)
				})
			}
			return a.setUpDNS(cmd, flags)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&flags.install, "install", false, "do it")
	f.BoolVar(&flags.uninstall, "uninstall", false, "take it back")
	f.StringVar(&flags.method, "for", "", "`what` resolves names here: systemd-resolved, networkmanager, dnsmasq or hosts (default: found out)")
	f.StringVar(&flags.server, "server", "", "`address` where banger answers (default: asked)")
	f.StringArrayVar(&flags.hosts, "host", nil, "`NAME=ADDRESS` for /etc/hosts (default: the VMs that run)")
	var methods []cobra.Completion
	for _, m := range resolver.Methods {
		methods = append(methods, string(m))
	}
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(methods, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) setUpDNS(cmd *cobra.Command, flags dnsFlags) error {
	ctx := cmd.Context()
	hosts, err := parseHosts(flags.hosts)
	if err != nil {
		return err
	}
	if flags.server == "" {
		if flags.server, hosts, err = a.namesNow(ctx); err != nil {
			return err
		}
	}
	server, err := netip.ParseAddrPort(flags.server)
	if err != nil {
		return inputError(cmd, "--server %q: want an address with a port: 127.0.0.1:42069", flags.server)
	}
	method := resolver.Method(flags.method)
	if method == "" {
		method = resolver.Detect("/")
	}
	plan, err := resolver.For(method, server, hosts)
	if err != nil {
		return err
	}
	if !flags.install {
		a.notice("names are resolved by %s here; a root shell would do this:", method)
		_, err = fmt.Fprint(a.Out, plan.Script())
		return err
	}
	args := []string{"dns", "setup", "--install", "--for", string(method), "--server", flags.server}
	for _, h := range hosts {
		args = append(args, "--host", h.Name+"="+h.Address.String())
	}
	err = a.asRoot(ctx, args, func(ctx context.Context) error { return plan.Install(ctx, "/", runProgram) })
	if err == nil && os.Geteuid() != 0 {
		a.tellResolves(ctx, hosts)
	}
	return err
}

func parseHosts(list []string) (hosts []resolver.Host, err error) {
	for _, text := range list {
		name, address, ok := strings.Cut(text, "=")
		ip, err := netip.ParseAddr(address)
		if !ok || err != nil {
			return nil, &banger.Error{Kind: banger.ErrInvalid, Op: "--host", Subject: fmt.Sprintf("%q", text), Err: errors.New("want NAME=ADDRESS")}
		}
		hosts = append(hosts, resolver.Host{Name: name, Address: ip})
	}
	return hosts, nil
}

// namesNow asks the daemon where it answers, and the running VMs for their addresses.
func (a *app) namesNow(ctx context.Context) (server string, hosts []resolver.Host, err error) {
	c, err := a.dial(ctx)
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	status, hosts, err := namesOf(ctx, c)
	if err == nil && status.DNS == "" {
		err = &banger.Error{Kind: banger.ErrUnavailable, Op: "set up names", Err: errors.New("the daemon does not answer for names"), Hint: "see its log: " + status.Log}
	}
	return status.DNS, hosts, err
}

func namesOf(ctx context.Context, c *client.Client) (status api.Status, hosts []resolver.Host, err error) {
	if status, err = c.Status(ctx); err != nil {
		return status, nil, err
	}
	vms, err := c.ListVMs(ctx)
	if err != nil {
		return status, nil, err
	}
	for _, vm := range vms {
		if vm.State != banger.StateRunning {
			continue
		}
		detail, err := c.ShowVM(ctx, string(vm.ID))
		if err != nil {
			continue
		}
		if run, err := (machine.Client{Socket: detail.MachineSocket}).Status(ctx); err == nil && run.Address.IsValid() {
			hosts = append(hosts, resolver.Host{Name: vm.Spec.Name, Address: run.Address})
		}
	}
	return status, hosts, nil
}

// asRoot does it, when we are root, or has sudo run banger with args.
func (a *app) asRoot(ctx context.Context, args []string, do func(context.Context) error) error {
	if os.Geteuid() == 0 {
		return do(ctx)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	err = proc.Run(ctx, proc.Command{Path: "sudo", Args: append([]string{"--", self}, args...), Stdin: a.In, Stdout: a.Out, Stderr: a.Err, Foreground: true})
	if err != nil {
		return &banger.Error{Op: "set up names", Err: err, Hint: `what a root shell has to do: banger dns setup`}
	}
	return nil
}

func runProgram(ctx context.Context, argv ...string) error {
	return proc.Run(ctx, proc.Command{Path: argv[0], Args: argv[1:]})
}

// tellResolves says whether a name resolves now.
func (a *app) tellResolves(ctx context.Context, hosts []resolver.Host) {
	if len(hosts) == 0 {
		a.notice("done; it shows when a VM runs: getent ahosts NAME.vm")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	name := hosts[0].Name + hostSuffix
	got, err := getent(ctx, name)
	for err != nil { // a NetworkManager that was restarted goes on with what it had for a moment
		select {
		case <-time.After(resolvePause):
			got, err = getent(ctx, name)
		case <-ctx.Done():
			a.notice("%s does not resolve yet: %v", name, err)
			return
		}
	}
	a.notice("%s resolves to %s", name, strings.Join(got, ", "))
}
