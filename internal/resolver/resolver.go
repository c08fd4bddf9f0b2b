// Package resolver knows how a Linux host resolves names, and what makes it ask banger for those that end in .vm.
//
// Each way is one file of banger's own and the command that makes the resolver read it; without a resolver that can ask for one domain
// elsewhere it is a block in /etc/hosts. All of it can be taken back.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/fence"
)

// Method is a way to resolve names.
type Method string

const (
	Resolved       Method = "systemd-resolved"
	NetworkManager Method = "networkmanager" // with its dnsmasq
	Dnsmasq        Method = "dnsmasq"
	Hosts          Method = "hosts" // /etc/hosts: addresses as they are now
)

// Methods are all of them.
var Methods = []Method{Resolved, NetworkManager, Dnsmasq, Hosts}

// undo is the command that takes everything back.
const undo = "banger dns setup --uninstall"

const (
	hostsFile    = "/etc/hosts"
	resolvedFile = "/etc/systemd/resolved.conf.d/banger.conf"
)

// Host is a name with its address.
type Host struct {
	Name    string
	Address netip.Addr
}

// Plan is what a host needs.
type Plan struct {
	Method   Method
	File     string   // that banger writes; for Hosts the one that gets a block
	Text     string   // its content, or the block's
	Commands []string // each a program with plain arguments
}

// Detect tells how the host below root ("/") resolves names.
func Detect(root string) Method {
	has := func(path, text string) bool {
		b, err := os.ReadFile(filepath.Join(root, path))
		return err == nil && strings.Contains(string(b), text)
	}
	exists := func(path string) bool { _, err := os.Stat(filepath.Join(root, path)); return err == nil }
	conf, _ := filepath.Glob(filepath.Join(root, "etc/NetworkManager/conf.d/*.conf"))
	byDnsmasq := has("etc/NetworkManager/NetworkManager.conf", "dns=dnsmasq") || slices.ContainsFunc(conf, func(path string) bool {
		b, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(b), "dns=dnsmasq")
	})
	switch {
	case exists("run/systemd/resolve/stub-resolv.conf") && !resolvedHasOthers(root) &&
		(has("etc/resolv.conf", "127.0.0.53") || has("etc/nsswitch.conf", "resolve") && !has("etc/resolv.conf", "nameserver")):
		return Resolved
	case exists("run/NetworkManager") && byDnsmasq:
		return NetworkManager
	case (exists("run/dnsmasq/dnsmasq.pid") || exists("run/dnsmasq.pid")) && has("etc/resolv.conf", "nameserver 127."):
		return Dnsmasq
	}
	return Hosts
}

// resolvedHasOthers tells whether systemd-resolved has servers for the whole host beside those of its links. It asks all of those alike,
// whatever the domain: a server of banger's among them would be asked for too little and too much.
func resolvedHasOthers(root string) bool {
	for _, pattern := range []string{"etc/systemd/resolved.conf", "etc/systemd/resolved.conf.d/*.conf", "run/systemd/resolved.conf.d/*.conf", "usr/lib/systemd/resolved.conf.d/*.conf"} {
		paths, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil || path == filepath.Join(root, resolvedFile) {
				continue
			}
			for line := range strings.Lines(string(text)) {
				key, value, _ := strings.Cut(line, "=")
				if strings.TrimSpace(key) == "DNS" && strings.TrimSpace(value) != "" {
					return true
				}
			}
		}
	}
	return false
}

// For gives what the method needs; server is where banger answers, hosts are the VMs with an address now.
func For(method Method, server netip.AddrPort, hosts []Host) (Plan, error) {
	forward := fmt.Sprintf("# Written by banger; undo: %s\nserver=/vm/%s#%d\n", undo, server.Addr(), server.Port())
	switch method {
	case Resolved:
		return Plan{method, resolvedFile,
			fmt.Sprintf("# Written by banger; undo: %s\n[Resolve]\nDNS=%s\nDomains=~vm\n", undo, server), []string{"systemctl restart systemd-resolved"}}, nil
	case NetworkManager:
		return Plan{method, "/etc/NetworkManager/dnsmasq.d/banger.conf", forward, []string{"systemctl restart NetworkManager"}}, nil
	case Dnsmasq:
		return Plan{method, "/etc/dnsmasq.d/banger.conf", forward, []string{"systemctl restart dnsmasq"}}, nil
	case Hosts:
		var b strings.Builder
		for _, h := range hosts {
			if banger.ValidateVMName(h.Name) != nil || !h.Address.IsValid() {
				return Plan{}, banger.Invalidf("host %q at %s: want the name of a VM and its address", h.Name, h.Address)
			}
			fmt.Fprintf(&b, "%s\t%s.vm\n", h.Address, h.Name)
		}
		return Plan{method, hostsFile, b.String(), nil}, nil
	}
	return Plan{}, banger.Invalidf("%q: want one of %s", method, list())
}

func list() string {
	var names []string
	for _, m := range Methods {
		names = append(names, string(m))
	}
	return strings.Join(names, ", ")
}

// Script is the plan as commands for a root shell.
func (p Plan) Script() string {
	if p.Method == Hosts {
		return "# lines for " + p.File + ", as long as these VMs run:\n" + p.Text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "mkdir -p %s\ncat > %s <<'EOF'\n%sEOF\n", filepath.Dir(p.File), p.File, p.Text)
	for _, command := range p.Commands {
		b.WriteString(command + "\n")
	}
	return b.String()
}

// Install does it below root; run runs a program. A plan that is in place already runs nothing.
func (p Plan) Install(ctx context.Context, root string, run func(ctx context.Context, argv ...string) error) error {
	path := filepath.Join(root, p.File)
	if p.Method == Hosts {
		_, err := fence.Edit(path, 0o644, func(text string) (string, error) { return fence.Put(text, undo, p.Text) })
		return err
	}
	if old, err := os.ReadFile(path); err == nil && string(old) == p.Text {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return &banger.Error{Kind: banger.ErrRefused, Op: "set up names", Err: err}
	}
	if err := atomicfile.Write(path, []byte(p.Text), 0o644); err != nil {
		return &banger.Error{Kind: banger.ErrRefused, Op: "set up names", Err: err}
	}
	return p.run(ctx, run)
}

func (p Plan) run(ctx context.Context, run func(ctx context.Context, argv ...string) error) error {
	for _, command := range p.Commands {
		if err := run(ctx, strings.Fields(command)...); err != nil {
			return &banger.Error{Op: "set up names", Subject: command, Err: err}
		}
	}
	return nil
}

// Has tells whether a VM's name is among the lines of the block that Hosts keeps. The other methods lead to whoever knows all names.
func (p Plan) Has(name string) bool {
	if p.Method != Hosts {
		return true
	}
	for line := range strings.Lines(p.Text) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == name+".vm" {
			return true
		}
	}
	return false
}

// Installed finds what is in place on the host below root, of Hosts with the lines that are there; current says that it leads to server.
// Errors: ErrNotFound when nothing is.
func Installed(root string, server netip.AddrPort) (plan Plan, current bool, err error) {
	for _, method := range Methods {
		if plan, err = For(method, server, nil); err != nil {
			return plan, false, err
		}
		text, err := os.ReadFile(filepath.Join(root, plan.File))
		switch {
		case errors.Is(err, fs.ErrNotExist), method == Hosts && err == nil && !fence.Has(string(text)):
		case err != nil:
			return plan, false, &banger.Error{Kind: banger.ErrUnavailable, Op: "read", Subject: plan.File, Err: err}
		case method == Hosts:
			plan.Text = fence.Body(string(text))
			return plan, true, nil
		default:
			return plan, string(text) == plan.Text, nil
		}
	}
	return plan, false, banger.ErrNotFound
}

// Uninstall takes back whatever any method has put in place.
func Uninstall(ctx context.Context, root string, run func(ctx context.Context, argv ...string) error) error {
	var failed []error
	for _, method := range Methods {
		p, err := For(method, netip.AddrPort{}, nil)
		if err != nil {
			return err
		}
		path := filepath.Join(root, p.File)
		if method == Hosts {
			_, err = fence.Edit(path, 0o644, fence.Remove)
		} else if err = os.Remove(path); err == nil {
			err = p.run(ctx, run)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
