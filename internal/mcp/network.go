package mcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"

	"banger"
	"banger/internal/project"
)

type portsOut struct {
	Ports []portInfo `json:"ports" jsonschema:"one for each listener"`
	beside
}

type portInfo struct {
	Port     int    `json:"port" jsonschema:"TCP port in the VM"`
	Address  string `json:"address" jsonschema:"what it listens on in the VM"`
	Process  string `json:"process,omitempty" jsonschema:"name of the program, as the VM says"`
	Endpoint string `json:"endpoint,omitempty" jsonschema:"where programs on the host reach it, and nobody else: ADDRESS:PORT"`
	URL      string `json:"url,omitempty" jsonschema:"the same for HTTP"`
	Error    string `json:"error,omitempty" jsonschema:"why the host can't reach it"`
}

type netOut struct {
	Net string `json:"net" jsonschema:"full (the internet), none, or allow=RULE,...; deny=RULE,... may follow"`
}

type netSetIn struct {
	ref
	Net string `json:"net" jsonschema:"full (the internet, never the host and its networks), none, or allow=RULE,... with rules such as github.com, github.com:443, *.pypi.org; ,deny=RULE,... may follow"`
}

type netLogIn struct {
	ref
	Denied bool `json:"denied,omitempty" jsonschema:"only what was refused"`
	Limit  int  `json:"limit,omitempty" jsonschema:"so many of the last events: 1 to 1000 (default: 100)"`
}

type netLogOut struct {
	Events []netEvent `json:"events" jsonschema:"the oldest first"`
	Left   int        `json:"left_out" jsonschema:"events before these"`
}

type netEvent struct {
	Time     string `json:"time" jsonschema:"RFC 3339"`
	Verdict  string `json:"verdict" jsonschema:"allowed, denied, closed or failed"`
	Proto    string `json:"proto" jsonschema:"tcp, udp, icmp or dns"`
	Target   string `json:"target" jsonschema:"name or address, with its port"`
	Address  string `json:"address,omitempty" jsonschema:"that the name stood for"`
	Reason   string `json:"reason,omitempty" jsonschema:"of a denial or failure"`
	Sent     int64  `json:"sent,omitempty" jsonschema:"bytes from the VM, of a closed connection"`
	Received int64  `json:"received,omitempty" jsonschema:"bytes to the VM, of a closed connection"`
}

type netCheckIn struct {
	ref
	Targets []string `json:"targets" jsonschema:"each a URL, HOST or HOST:PORT; 1 to 50"`
}

type netCheckOut struct {
	Results []checkInfo `json:"results" jsonschema:"in the order of the targets"`
}

type checkInfo struct {
	Target    string   `json:"target" jsonschema:"as it was asked for"`
	Allowed   bool     `json:"allowed" jsonschema:"whether it would be let through"`
	Reason    string   `json:"reason,omitempty" jsonschema:"of a denial"`
	Addresses []string `json:"addresses,omitempty" jsonschema:"that would be used"`
}

func (s *Server) networkTools() {
	add(s, about{name: "vm_ports", title: "Show what listens in a VM", repeatable: true, host: "opens each port on an address of the loopback that is the VM's alone",
		text: "Show every TCP port that a program in a running VM listens on, and where programs on the host reach it."}, ports)
	add(s, about{name: "vm_net_show", title: "Show a VM's network policy", reads: true, repeatable: true, host: "nothing", text: "Show what the network of a VM may reach."},
		func(ctx context.Context, c *call, in ref) (netOut, error) {
			vm, err := c.vm(ctx, in.VM)
			return netOut{vm.Spec.Net.Or(banger.NetFull).String()}, err
		})
	add(s, about{name: "vm_net_set", title: "Set a VM's network policy", destroys: true, repeatable: true, host: "nothing",
		text: `Set what the network of a VM may reach, at once; connections that are not allowed any more end. No more than the user's default for VMs, or
what the server was told, can be set; of a VM that no agent has made, no more than it has.`}, netSet)
	add(s, about{name: "vm_net_log", title: "Show what a VM's network did", reads: true, repeatable: true, host: "nothing", text: "Show connections of a VM and what was refused, also of its last runs."}, netLog)
	add(s, about{name: "vm_net_check", title: "Check what a VM's network would reach", reads: true, repeatable: true, open: true, host: "looks up allowed names; connects to nothing",
		text: "Tell what would become of connections of a VM, by its policy. Nothing is connected to."}, netCheck)
}

func ports(ctx context.Context, c *call, in ref) (portsOut, error) {
	var out portsOut
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return out, err
	}
	ports, entry, err := c.Ports(ctx, string(vm.ID))
	if err != nil {
		return out, err
	}
	_, entryPort, _ := net.SplitHostPort(entry)
	for _, p := range ports.Listeners {
		info := portInfo{Port: int(p.Port), Address: netip.AddrPortFrom(p.Address, p.Port).String(), Process: p.Process}
		if p.Endpoint.IsValid() {
			info.Endpoint = p.Endpoint.String()
		}
		if p.Error != nil {
			info.Error = p.Error.Message
		}
		if entryPort != "" {
			info.URL = "http://" + strconv.Itoa(int(p.Port)) + "." + vm.Spec.Name + ".localhost:" + entryPort
		}
		out.Ports = append(out.Ports, info)
	}
	out.beside = c.told()
	return out, nil
}

func netSet(ctx context.Context, c *call, in netSetIn) (netOut, error) {
	policy, err := banger.ParseNetPolicy(in.Net)
	if err != nil {
		return netOut{}, err
	}
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return netOut{}, err
	}
	limit := c.cfg.Net
	if !byAgent(vm.VM) {
		limit = vm.Spec.Net.Or(banger.NetFull)
	}
	if policy, err = c.allowed(ctx, project.Settings{Net: policy}, limit); err != nil {
		return netOut{}, err
	}
	set, err := c.SetNet(ctx, string(vm.ID), banger.NetChange{Set: policy})
	return netOut{set.String()}, err
}

func netLog(ctx context.Context, c *call, in netLogIn) (netLogOut, error) {
	const most = 1000
	if in.Limit == 0 {
		in.Limit = 100
	}
	var out netLogOut
	if in.Limit < 0 || in.Limit > most {
		return out, banger.Invalidf("limit %d: want 1 to %d", in.Limit, most)
	}
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return out, err
	}
	err = c.NetLog(ctx, string(vm.ID), func(e banger.NetEvent) error {
		if in.Denied && e.Verdict != banger.NetDenied {
			return nil
		}
		out.Events = append(out.Events, netEvent{moment(e.Time), e.Verdict, e.Proto, e.Target(), e.Addr, e.Reason, e.Sent, e.Received})
		out.Left += e.Lost
		if len(out.Events) > in.Limit {
			out.Events = out.Events[1:]
			out.Left++
		}
		return nil
	})
	return out, err
}

func netCheck(ctx context.Context, c *call, in netCheckIn) (netCheckOut, error) {
	var out netCheckOut
	if len(in.Targets) == 0 || len(in.Targets) > 50 {
		return out, &banger.Error{Kind: banger.ErrInvalid, Op: "targets", Err: errors.New("want 1 to 50 of them")}
	}
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return out, err
	}
	results, err := c.CheckNet(ctx, vm.Spec.Net, in.Targets)
	for _, r := range results {
		out.Results = append(out.Results, checkInfo(r))
	}
	return out, err
}
