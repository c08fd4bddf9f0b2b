package project

import (
	"fmt"
	"slices"
	"strings"

	"banger"
)

// Kinds of a Need.
const (
	NeedEnv      = "environment" // the value of a variable of the user's environment goes into the VM
	NeedPath     = "path"        // where the repository lies on this computer
	NeedCopy     = "copy"        // a file or directory of this computer is copied into the VM
	NeedNet      = "network"     // a target beyond what VMs reach by default
	NeedHostPort = "host port"   // a port on this computer's loopback address
	NeedPort     = "port"        // an address here that is more than a high port of the loopback
	NeedImage    = "image"       // one that is the user's own, or that a private registry has
	NeedSize     = "size"        // a large part of this computer
)

// Need is one thing that a repository gets only by the user's consent. Never does it hold the value of a variable.
type Need struct {
	Kind  string `json:"kind"`  // "environment", "path", "copy", "network", "host port", "port", "image" or "size"
	Value string `json:"value"` // what exactly: a variable's name, a path, a target, an address
	File  string `json:"file"`  // that asks for it
}

// words say each kind to a person.
var words = map[string]string{
	NeedEnv:      "the value of this variable of your environment: ",
	NeedPath:     "the path of the repository on this computer: ",
	NeedCopy:     "a copy, at each start, of what is on this computer: ",
	NeedNet:      "the network beyond what is usual: ",
	NeedHostPort: "connections to this port on this computer: ",
	NeedPort:     "to listen on this address of this computer: ",
	NeedImage:    "an image that may be yours alone: ",
	NeedSize:     "a large part of this computer: ",
}

// String says it to a person. It is not escaped.
func (n Need) String() string { return words[n.Kind] + n.Value }

// Host is what a project's wishes are compared with.
type Host struct {
	Net      banger.NetPolicy           // default of new VMs
	Image    string                     // default of new VMs
	VCPU     int64                      // that a project may take without asking
	Memory   int64                      // bytes, likewise
	Disk     int64                      // bytes, likewise
	SignedIn func(registry string) bool // whether the user has credentials for it
}

// Needs lists what settings ask for beyond what every VM may have, in a fixed order, each once.
func (s Settings) Needs(root string, h Host) []Need {
	var needs []Need
	add := func(kind, value, key string) {
		need := Need{Kind: kind, Value: value, File: s.From[key]}
		if !slices.ContainsFunc(needs, func(n Need) bool { return n.Kind == kind && n.Value == value }) {
			needs = append(needs, need)
		}
	}
	s.needsImage(h, add)
	c := s.clone()
	c.texts(func(key string, text *string) {
		replace(*text, func(kind string, args []string) (string, bool) {
			switch {
			case (kind == "localEnv" || kind == "env") && len(args) > 0:
				add(NeedEnv, args[0], key)
			case kind == "localWorkspaceFolder":
				add(NeedPath, root, key)
			}
			return "", false
		})
	})
	for _, f := range s.Copies {
		add(NeedCopy, f.Host+" → "+f.Guest, KeyCopies)
	}
	for _, what := range beyond(s.Net, h.Net) {
		add(NeedNet, what, KeyNet)
	}
	for _, port := range s.HostPorts {
		if !slices.Contains(h.Net.Allow, banger.NetRule{Host: true, Port: port}) {
			add(NeedHostPort, banger.NetRule{Host: true, Port: port}.String(), KeyHostPorts)
		}
	}
	for _, f := range s.Ports {
		if f.Host.Port() < 1024 || f.Host.Addr() != loopback {
			add(NeedPort, f.Host.String(), KeyPorts)
		}
	}
	if s.VCPU.N > h.VCPU {
		add(NeedSize, fmt.Sprintf("%d processors", s.VCPU.N), KeyVCPU)
	}
	if s.Memory.N > h.Memory {
		add(NeedSize, "memory "+banger.FormatSize(s.Memory.N), KeyMemory)
	}
	if s.Disk.N > h.Disk {
		add(NeedSize, "disk "+banger.FormatSize(s.Disk.N), KeyDisk)
	}
	return needs
}

// publicRegistries are those whose images everybody can have.
var publicRegistries = []string{"docker.io", "index.docker.io", "ghcr.io", "mcr.microsoft.com", "quay.io", "public.ecr.aws", "gcr.io", "registry.gitlab.com",
	"registry.fedoraproject.org", "registry.access.redhat.com", "registry.k8s.io", "registry.opensuse.org"}

// ImageRef is the image as "vm run --image" takes it: an image of devcontainer.json is always one of a registry.
func (s Settings) ImageRef() string {
	if s.Image != "" && s.Registry && !strings.ContainsAny(s.Image, ":/@") {
		return s.Image + ":latest"
	}
	return s.Image
}

// needsImage wants consent for images that not everybody can have: what is in them is open to the repository's programs. So is a pull
// from a registry that the user is signed in to, and one that makes this computer ask a server of the repository's choice.
func (s Settings) needsImage(h Host, add func(kind, value, key string)) {
	ref := s.ImageRef()
	if ref == "" || ref == h.Image {
		return
	}
	if registry := registryOf(ref); !slices.Contains(publicRegistries, registry) || h.SignedIn(registry) {
		add(NeedImage, ref, KeyImage)
	}
}

// registryOf gives the registry of a reference as docker reads it; "" for a plain name, and for what can't be told.
func registryOf(ref string) string {
	first, rest, ok := strings.Cut(ref, "/")
	switch {
	case !strings.ContainsAny(ref, ":/@") || strings.Contains(ref, "$"):
		return ""
	case ok && (strings.ContainsAny(first, ".:") || first == "localhost"):
		if rest == "" {
			return ""
		}
		return strings.ToLower(first)
	}
	return "docker.io"
}

// beyond lists what p grants that def does not. It says so rather once too often: only rules that def has itself, and names when def
// is the whole internet, are none. What def denies stays denied: see [Network].
func beyond(p, def banger.NetPolicy) (list []string) {
	if !p.Given {
		return nil
	}
	def = def.Or(banger.NetFull)
	if p.Open && !def.Open {
		list = append(list, "the whole internet")
	}
	for _, rule := range p.Allow {
		if slices.Contains(def.Allow, rule) || rule.Name != "" && def.Open {
			continue
		}
		list = append(list, rule.String())
	}
	return list
}

// Network is the policy for a VM of the project: what it wants, and what the user's own default denies stays denied.
func Network(p, def banger.NetPolicy) banger.NetPolicy {
	if !p.Given {
		return p
	}
	p.Deny = slices.Clone(p.Deny)
	for _, rule := range def.Deny {
		if !slices.Contains(p.Deny, rule) {
			p.Deny = append(p.Deny, rule)
		}
	}
	return p
}
