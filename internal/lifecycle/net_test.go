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

// A name leads other VMs to who has it now, also while the supervisor of who had it before hangs, and after a crash.
func TestPeerNames(t *testing.T) {
	w := newWorld(t)
	first := w.mustCreate("db", true)
	want := func(when, name string, id banger.VMID) {
		t.Helper()
		if got, _ := machine.Peer(w.dir.Peers(), name); got != id {
			t.Errorf("%s %s leads to %q, want %q", when, name, got, id)
		}
	}
	want("after a start", "db", first.ID)
	w.awaitWatcher(first.ID)
	w.mu.Lock()
	w.runs[first.ID].supervisor = false // unnoticed: it hangs
	w.mu.Unlock()
	if _, err := w.Rename(t.Context(), "db", "old", nil); err != nil {
		t.Fatal(err)
	}
	want("after a rename", "old", first.ID)
	want("after a rename", "db", "")
	second := w.mustCreate("db", false)
	want("before its start", "db", "")
	if _, err := w.Start(t.Context(), "db", nil); err != nil {
		t.Fatal(err)
	}
	want("after its start", "db", second.ID)
	if _, err := w.Rename(t.Context(), "old", "db", nil); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Rename to a taken name = %v", err)
	}
	want("after a rename that was refused", "db", second.ID)
	want("after a rename that was refused", "old", first.ID)
	w.mu.Lock()
	w.runs[first.ID].supervisor = true
	w.mu.Unlock()
	for name, id := range map[string]banger.VMID{"db": first.ID, "gone": "0123456789ab"} { // as a daemon leaves it that dies
		if err := machine.NamePeer(w.dir.Peers(), name, id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []banger.VMID{first.ID, "0123456789ab"} { // the second is that of a supervisor that was killed
		l, err := machine.Listen(machine.PeerSocket(w.dir.Peers(), id))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	w.restart()
	want("after a crash", "db", second.ID)
	want("after a crash", "old", first.ID)
	want("after a crash", "gone", "")
	if left, err := os.ReadDir(w.dir.Peers()); err != nil || len(left) != 3 {
		t.Errorf("there are %v, %v; want two names and a socket", left, err)
	}
	for _, name := range []string{"old", "db"} {
		if _, err := w.Delete(t.Context(), name, true, nil); err != nil {
			t.Fatal(err)
		}
		want("after its deletion", name, "")
	}
}
