package lifecycle

import (
	"errors"
	"os"
	"testing"

	"banger"
	"banger/api"
	"banger/internal/machine"
)

func TestSetNet(t *testing.T) {
	w := newWorld(t)
	runs, stopped := w.mustCreate("x", true), w.mustCreate("y", false)
	if got := w.runs[runs.ID].net; got.String() != "full" || runs.Spec.Net.String() != "full" {
		t.Errorf("policy of a new VM: %q, of its machine: %q, want full", runs.Spec.Net, got)
	}
	for _, test := range []struct {
		ref    string
		change banger.NetChange
		want   string
	}{
		{"x", banger.NetChange{Set: banger.NetNone}, "none"}, {"x", banger.NetChange{Allow: []string{"github.com"}}, "allow=github.com"},
		{"y", banger.NetChange{Deny: []string{"evil.example"}}, "deny=evil.example"},
	} {
		got, err := w.SetNet(t.Context(), test.ref, test.change)
		if err != nil || got.Spec.Net.String() != test.want || w.get(test.ref).Spec.Net.String() != test.want {
			t.Errorf("SetNet(%s, %+v) = %q, %v, want %q", test.ref, test.change, got.Spec.Net, err, test.want)
		}
	}
	if got := w.runs[runs.ID].net.String(); got != "allow=github.com" {
		t.Errorf("the machine has %q", got)
	}
	for _, test := range []struct {
		ref    string
		change banger.NetChange
		kind   error
	}{
		{"x", banger.NetChange{Allow: []string{"a b"}}, banger.ErrInvalid}, {"x", banger.NetChange{Remove: []string{"a"}}, banger.ErrNotFound},
		{"nosuch", banger.NetChange{Set: banger.NetNone}, banger.ErrNotFound},
	} {
		if _, err := w.SetNet(t.Context(), test.ref, test.change); !errors.Is(err, test.kind) {
			t.Errorf("SetNet(%s, %+v) = %v, want %v", test.ref, test.change, err, test.kind)
		}
	}
	if _, err := w.Start(t.Context(), "y", nil); err != nil || w.runs[stopped.ID].net.String() != "deny=evil.example" {
		t.Errorf("after the start: %v, %q", err, w.runs[stopped.ID].net)
	}
	w.restart()
	if got := w.get("x").Spec.Net.String(); got != "allow=github.com" {
		t.Errorf("after a restart: %q", got)
	}
}

// A machine that does not answer is told when its supervisor is taken up again, and until then the change is an error.
func TestSetNetWithoutAnAnswer(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	w.awaitWatcher(vm.ID)
	set := func(answers bool) {
		w.mu.Lock()
		w.runs[vm.ID].supervisor = answers
		w.mu.Unlock()
	}
	set(false)
	if _, err := w.SetNet(t.Context(), "x", banger.NetChange{Set: banger.NetNone}); !errors.Is(err, banger.ErrUnavailable) || banger.HintOf(err) != "banger vm restart x" {
		t.Errorf("SetNet = %v", err)
	}
	set(true)
	w.restart()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.runs[vm.ID].net.String(); got != "none" {
		t.Errorf("the machine has %q", got)
	}
}

func TestDefaultNet(t *testing.T) {
	w := newWorld(t)
	w.Defaults.Net = banger.NetNone
	if vm := w.mustCreate("x", false); vm.Spec.Net.String() != "none" {
		t.Errorf("policy %q, want the default", vm.Spec.Net)
	}
	vm, err := w.Create(t.Context(), api.CreateRequest{Name: "y", Net: banger.NetChange{Set: banger.NetFull}}, nil, nil)
	if err != nil || vm.Spec.Net.String() != "full" {
		t.Errorf("policy %q, %v, want what was asked for", vm.Spec.Net, err)
	}
}

// Sockets for other VMs that a killed supervisor has left go when the daemon starts; those of VMs that run stay.
func TestPeersAfterAKill(t *testing.T) {
	w := newWorld(t)
	if err := os.MkdirAll(w.dir.Peers(), 0o700); err != nil {
		t.Fatal(err)
	}
	w.mustCreate("runs", true)
	w.mustCreate("stopped", false)
	for _, name := range []string{"runs", "stopped", "deleted"} {
		l, err := machine.Listen(machine.PeerSocket(w.dir.Peers(), name))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	w.restart()
	for name, want := range map[string]bool{"runs": true, "stopped": false, "deleted": false} {
		if _, err := os.Lstat(machine.PeerSocket(w.dir.Peers(), name)); (err == nil) != want {
			t.Errorf("the socket of %s: %v, want it kept: %v", name, err, want)
		}
	}
}
