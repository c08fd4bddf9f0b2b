package banger

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NetPolicy says what a VM's network may reach. The zero value is "not given"; [NetFull] and [NetNone] are the plain ones.
// As text, in JSON too, it is "full", "none", or lists: "allow=github.com,*.pypi.org,deny=evil.example". "full" may be
// followed by such lists: what they allow is granted beside the internet.
type NetPolicy struct {
	Open  bool // the whole internet; else only what Allow says
	Given bool
	Allow []NetRule
	Deny  []NetRule // goes before Allow
}

// NetFull is the internet, NetNone nothing.
var (
	NetFull = NetPolicy{Open: true, Given: true}
	NetNone = NetPolicy{Given: true}
)

// NetRule is one target of a policy; exactly one of Name, Prefix, VM and Host is set.
type NetRule struct {
	Name   string       // lower case; "*.example.org" is every name below example.org, "*" every name
	Prefix netip.Prefix // addresses; masked
	VM     string       // another VM, by name
	Host   bool         // a port on the host's loopback address
	Port   uint16       // 0: all
}

const (
	maxNetRules = 256
	maxNetText  = 16 << 10
	vmPrefix    = "vm:"
	hostPrefix  = "host:"
)

var hostNamePattern = Pattern(`^(\*|(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)$`)

// ParseNetPolicy reads the text form. Errors: ErrInvalid, with the place of the mistake.
func ParseNetPolicy(text string) (NetPolicy, error) {
	var p NetPolicy
	if len(text) > maxNetText {
		return p, Invalidf("network policy of %d bytes: want at most %d", len(text), maxNetText)
	}
	list := (*[]NetRule)(nil)
	for at, first := 0, true; ; first = false {
		item, _, more := strings.Cut(text[at:], ",")
		rule, err := p.head(item, first, &list)
		if err == nil && rule != "" {
			err = p.add(list, rule)
		}
		if err != nil {
			return NetPolicy{}, pointAt(text, at+len(item)-len(rule), err)
		}
		if !more {
			break
		}
		at += len(item) + 1
	}
	p.Given = true
	return p, nil
}

// head handles what stands before a rule: "full", "none", "allow=" or "deny=". It gives what is left of item.
func (p *NetPolicy) head(item string, first bool, list **[]NetRule) (rule string, err error) {
	switch {
	case first && item == "full":
		p.Open = true
		return "", nil
	case first && item == "none":
		return "", nil
	case strings.HasPrefix(item, "allow="):
		*list, rule = &p.Allow, item[len("allow="):]
	case strings.HasPrefix(item, "deny="):
		p.Open = p.Open || first // a policy of denials only is for the rest of the internet
		*list, rule = &p.Deny, item[len("deny="):]
	case *list == nil:
		return item, fmt.Errorf(`%.80q: want "full", "none", "allow=…" or "deny=…"`, item)
	default:
		rule = item
	}
	if rule == "" {
		return "", fmt.Errorf("a rule is missing here")
	}
	return rule, nil
}

func (p *NetPolicy) add(list *[]NetRule, text string) error {
	rule, err := parseNetRule(text)
	if err != nil {
		return err
	}
	if list == &p.Deny && (rule.Host || rule.VM != "") {
		return fmt.Errorf("%.80q: VMs and the host are denied unless allowed", text)
	}
	if len(p.Allow)+len(p.Deny) >= maxNetRules {
		return fmt.Errorf("more than %d rules", maxNetRules)
	}
	if !slices.Contains(*list, rule) {
		*list = append(*list, rule)
	}
	return nil
}

// pointAt shows the place of a mistake in text.
func pointAt(text string, at int, err error) error {
	return &Error{Kind: ErrInvalid, Op: "network policy", Err: fmt.Errorf("at character %d: %w\n%s\n%s^", at+1, err, text, strings.Repeat(" ", at)),
		Hint: `for example: full, none, allow=github.com,*.pypi.org:443,10.0.0.0/8:5432,vm:db:5432,host:8080`}
}

// ParseNetRule reads one target: a name, "*.name", an address or CIDR, "vm:NAME" or "host:PORT"; all but the last may end
// with ":PORT". An IPv6 address with a port stands in brackets. Errors: ErrInvalid.
func ParseNetRule(text string) (NetRule, error) {
	rule, err := parseNetRule(text)
	if err != nil {
		return rule, pointAt(text, 0, err)
	}
	return rule, nil
}

func parseNetRule(text string) (rule NetRule, err error) {
	target, port := text, ""
	switch colon := strings.LastIndexByte(text, ':'); {
	case strings.HasPrefix(text, hostPrefix):
		rule.Host = true
		target, port = "", text[len(hostPrefix):]
		if port == "" {
			return rule, fmt.Errorf("%.80q: want host:PORT", text)
		}
	case strings.HasPrefix(text, vmPrefix):
		rule.VM = text[len(vmPrefix):]
		rule.VM, port, _ = strings.Cut(rule.VM, ":")
		if !vmNamePattern().MatchString(rule.VM) || len(rule.VM) > 63 {
			return rule, fmt.Errorf("%.80q: want vm:NAME or vm:NAME:PORT", text)
		}
	case strings.HasPrefix(text, "["):
		end := strings.IndexByte(text, ']')
		if end < 0 || end+1 < len(text) && text[end+1] != ':' {
			return rule, fmt.Errorf("%.80q: want [ADDRESS]:PORT", text)
		}
		target, port = text[1:end], strings.TrimPrefix(text[end+1:], ":")
	case strings.Count(text, ":") == 1:
		if target, port = text[:colon], text[colon+1:]; port == "" {
			return rule, fmt.Errorf("%.80q: a port is missing after ':'", text)
		}
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
			return rule, fmt.Errorf("port %.20q: want 1 to 65535", port)
		}
		rule.Port = uint16(n)
	}
	if rule.Host || rule.VM != "" {
		return rule, nil
	}
	return rule, rule.setTarget(target)
}

// setTarget reads a name or addresses.
func (r *NetRule) setTarget(target string) (err error) {
	name := strings.TrimSuffix(target, ".")
	if strings.ContainsAny(target, "/:") || looksNumeric(name) {
		r.Prefix, err = parsePrefix(target)
		return err
	}
	r.Name = strings.ToLower(name)
	if len(r.Name) > 253 || !hostNamePattern().MatchString(r.Name) {
		return fmt.Errorf("%.80q: want a name such as github.com or *.github.com (others than ASCII as xn--…), an address or a CIDR", target)
	}
	return nil
}

// looksNumeric tells what can be no name: its last label is a number.
func looksNumeric(target string) bool {
	last := target[strings.LastIndexByte(target, '.')+1:]
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if !strings.Contains(text, "/") {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
	}
	switch {
	case err != nil || !prefix.IsValid():
		return prefix, fmt.Errorf("%.80q: want an address, or a CIDR such as 10.0.0.0/8", text)
	case prefix.Addr().Is4In6():
		return prefix, fmt.Errorf("%.80q: want the IPv4 address itself", text)
	case prefix.Masked() != prefix:
		return prefix, fmt.Errorf("%.80q has bits beyond its mask: want %s", text, prefix.Masked())
	}
	return prefix, nil
}

// String is the rule as ParseNetRule reads it.
func (r NetRule) String() string {
	port := ""
	if r.Port != 0 {
		port = ":" + strconv.Itoa(int(r.Port))
	}
	switch {
	case r.Host:
		return "host" + port
	case r.VM != "":
		return vmPrefix + r.VM + port
	case r.Name != "":
		return r.Name + port
	}
	addr := r.Prefix.String()
	if r.Prefix.IsSingleIP() {
		addr = r.Prefix.Addr().String()
	}
	if r.Prefix.Addr().Is6() && port != "" {
		addr = "[" + addr + "]"
	}
	return addr + port
}

// String is the policy as ParseNetPolicy reads it; "" when it is not given.
func (p NetPolicy) String() string {
	var b strings.Builder
	switch {
	case !p.Given:
		return ""
	case p.Open && (len(p.Allow) > 0 || len(p.Deny) == 0):
		b.WriteString("full")
	case !p.Open && len(p.Allow) == 0:
		b.WriteString("none")
	}
	for i, rules := range [][]NetRule{p.Allow, p.Deny} {
		word := [...]string{"allow=", "deny="}[i]
		for _, r := range rules {
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			b.WriteString(word + r.String())
			word = ""
		}
	}
	return b.String()
}

// MarshalText implements encoding.TextMarshaler.
func (p NetPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *NetPolicy) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*p = NetPolicy{}
		return nil
	}
	*p, err = ParseNetPolicy(string(text))
	return err
}

// IsZero tells that no policy was given.
func (p NetPolicy) IsZero() bool { return !p.Given }

// Or is p, or fallback when p is not given.
func (p NetPolicy) Or(fallback NetPolicy) NetPolicy {
	if p.Given {
		return p
	}
	return fallback
}

// NetChange changes a policy: first Set replaces it when given, then Remove takes rules from both lists, Allow and Deny add.
type NetChange struct {
	Set    NetPolicy `json:"set,omitzero"`
	Allow  []string  `json:"allow,omitempty"`
	Deny   []string  `json:"deny,omitempty"`
	Remove []string  `json:"remove,omitempty"`
}

// Apply gives the changed policy. A rule that is allowed is denied no more, and the other way around. Errors: ErrInvalid;
// ErrNotFound for a rule to remove that is not there.
func (c NetChange) Apply(p NetPolicy) (NetPolicy, error) {
	p = c.Set.Or(p).Or(NetFull)
	p.Allow, p.Deny = slices.Clone(p.Allow), slices.Clone(p.Deny)
	for _, text := range c.Remove {
		rule, err := ParseNetRule(text)
		if err != nil {
			return p, err
		}
		before := len(p.Allow) + len(p.Deny)
		p.Allow, p.Deny = without(p.Allow, rule), without(p.Deny, rule)
		if len(p.Allow)+len(p.Deny) == before {
			return p, &Error{Kind: ErrNotFound, Op: "network policy", Subject: rule.String(), Err: fmt.Errorf("there is no such rule in %q", p), Hint: "banger vm net NAME show"}
		}
	}
	for _, l := range []struct {
		texts    []string
		to, from *[]NetRule
	}{{c.Allow, &p.Allow, &p.Deny}, {c.Deny, &p.Deny, &p.Allow}} {
		for _, text := range l.texts {
			rule, err := ParseNetRule(text)
			if err != nil {
				return p, err
			}
			*l.from = without(*l.from, rule)
			if err := p.add(l.to, text); err != nil {
				return p, pointAt(text, 0, err)
			}
		}
	}
	return p, nil
}

func without(list []NetRule, rule NetRule) []NetRule {
	return slices.DeleteFunc(list, func(r NetRule) bool { return r == rule })
}

// NetTraffic is what has gone through a VM's network card in connections that its policy allows, and in those of other VMs into it:
// bytes of payload, without headers. Name lookups, address assignment and the like are not in it.
type NetTraffic struct {
	SentBytes     int64 `json:"sent_bytes"`     // by the guest
	ReceivedBytes int64 `json:"received_bytes"` // by the guest
}

// NetEvent is one line of a VM's network log.
type NetEvent struct {
	Time     time.Time     `json:"time"`                 // when it was noted
	Verdict  string        `json:"verdict"`              // "allowed", "denied", "closed" or "failed"
	Proto    string        `json:"proto"`                // "tcp", "udp", "icmp", "dns"
	Name     string        `json:"name,omitempty"`       // what the guest asked its resolver for, if it did
	Addr     string        `json:"addr,omitempty"`       // where it went to
	Port     uint16        `json:"port,omitempty"`       // of the target; absent: "icmp" and "dns" have none
	Reason   string        `json:"reason,omitempty"`     // of a denial or failure
	Sent     int64         `json:"sent,omitempty"`       // bytes of the guest, of a closed connection
	Received int64         `json:"received,omitempty"`   // bytes to the guest, likewise
	Elapsed  time.Duration `json:"elapsed_ns,omitempty"` // how long a closed connection was open
	Lost     int           `json:"lost,omitempty"`       // events before this one that were too many to be kept
}

// Verdicts of a NetEvent.
const (
	NetAllowed = "allowed"
	NetDenied  = "denied"
	NetClosed  = "closed" // an allowed connection has ended
	NetFailed  = "failed" // allowed, but the target did not answer
)

// Target is what the event is about, for people: a name with its port, else the address.
func (e NetEvent) Target() string {
	target := cmp.Or(e.Name, e.Addr)
	if e.Port == 0 {
		return target
	}
	if strings.Contains(target, ":") {
		target = "[" + target + "]"
	}
	return target + ":" + strconv.Itoa(int(e.Port))
}
