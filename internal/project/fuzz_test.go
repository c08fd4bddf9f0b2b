package project

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"net/netip"

	"banger"
)

const canary = "\U0001f424CANARY"

// checkSettings holds what is true of every file that is taken: nothing of the host's environment gets out that the user was not asked
// about, the result can be a VM's, and what needs no consent is within what every VM may have.
func checkSettings(t *testing.T, parse parser, text []byte) {
	s, _, err := parse("f", text)
	if err != nil {
		if !errors.Is(err, banger.ErrInvalid) {
			t.Fatalf("%v has no kind", err)
		}
		return
	}
	if again, _, err := parse("f", text); err != nil || gocmp.Diff(s, again, cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})) != "" {
		t.Fatalf("another time it is %+v, %v", again, err)
	}
	if merged := s.over(s); len(merged.From) != len(s.From) || len(merged.Create) != len(s.Create) {
		t.Fatalf("over itself it is %+v", merged)
	}
	needs := s.Needs("/repo", testHost())
	asked := func(kind, value string) bool {
		return slices.ContainsFunc(needs, func(n Need) bool { return n.Kind == kind && n.Value == value && n.File == "f" })
	}
	got, err := s.Resolve(Values{Root: "/repo", Folder: "/root/repo", ContainerEnv: func(name string) (string, error) { return "image", nil },
		LocalEnv: func(name string) (string, bool) {
			if !asked(NeedEnv, name) {
				t.Fatalf("the host's %q is used, and needs are %v", name, needs)
			}
			return canary, true
		}})
	if err != nil && !errors.Is(err, banger.ErrInvalid) {
		t.Fatalf("Resolve: %v has no kind", err)
	}
	for _, n := range needs {
		if strings.Contains(n.Value, canary) {
			t.Fatalf("a need holds a value: %+v", n)
		}
	}
	if err == nil && !slices.ContainsFunc(needs, func(n Need) bool { return n.Kind == NeedEnv }) && !strings.Contains(string(text), "CANARY") &&
		strings.Contains(fmt.Sprintf("%+v", got), "CANARY") {
		t.Fatalf("the host's environment is in %+v", got)
	}
	if len(needs) > 0 {
		return
	}
	for _, f := range s.Ports {
		if f.Host.Addr() != loopback || f.Host.Port() < 1024 {
			t.Fatalf("%v needs no consent", f)
		}
	}
	for _, rule := range s.Net.Allow {
		if rule.Name == "" {
			t.Fatalf("%v needs no consent", rule)
		}
	}
	if len(s.HostPorts)+len(s.Copies) > 0 || s.Memory.N > 8<<30 || s.VCPU.N > 4 {
		t.Fatalf("%+v needs no consent", s)
	}
}

func FuzzDevcontainer(f *testing.F) {
	f.Add([]byte(wholeDevcontainer))
	f.Add([]byte(`{"image": "a:${localEnv:X}", "mounts": [{"type": "bind", "source": "/a", "target": "/b"}]}`))
	f.Add([]byte(`{"remoteEnv": {"A": "${localEnv:${localEnv:B}}"}, "onCreateCommand": {"x": [" "]},}`))
	f.Fuzz(func(t *testing.T, text []byte) { checkSettings(t, parseDevcontainer, text) })
}

func FuzzTOML(f *testing.F) {
	f.Add([]byte("image = \"a\"\nnet = \"full,allow=host:80\"\nports = [\"80\"]\n[env]\nA = \"${localEnv:B}\"\n[commands]\ncreate = [\"x\"]\n[[sync]]\nhost = \"~/x\"\nguest = \"~/x\"\n"))
	f.Add([]byte("allow_host = [1]\nmemory = \"64G\"\nvolumes = [\"/a\"]\n"))
	f.Fuzz(func(t *testing.T, text []byte) { checkSettings(t, parseTOML, text) })
}
