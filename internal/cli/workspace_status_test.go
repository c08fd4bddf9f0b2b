package cli

import (
	"bytes"
	"strings"
	"testing"

	"banger"
	"banger/api"
	"banger/internal/workspace"
)

// A work tree that lies in the repository is named once, and what the guest calls things can't reach the terminal.
func TestOtherRepositories(t *testing.T) {
	var out bytes.Buffer
	f := &fetched{Copy: &workspace.Copy{Nested: []string{"lib\x1b[2J", "tree"}, Linked: []string{"/root/repo/tree", "/tmp/fix"}}, ws: banger.Workspace{GuestPath: "/root/repo"}}
	f.vm = api.VMDetail{VM: banger.VM{Spec: banger.VMSpec{Name: "devbox"}}}
	(&app{Streams: Streams{Err: &out}}).showOthers(f)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q", lines)
	}
	for i, want := range []string{"banger vm cp devbox:/root/repo/lib", "banger vm cp devbox:/root/repo/tree .", "/tmp/fix is another work tree of it"} {
		if !strings.Contains(lines[i], want) || strings.Contains(lines[i], "\x1b") {
			t.Errorf("%q, want %q", lines[i], want)
		}
	}
}
