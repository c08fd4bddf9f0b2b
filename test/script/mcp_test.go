package script

import (
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"banger/internal/cli"
)

// TestAgentTools has an agent use the commands through "banger mcp" as far as they need no guest.
func TestAgentTools(t *testing.T) {
	root := t.TempDir()
	w, err := newWorld(filepath.Join(root, "s"), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	t.Setenv("BANGER_STATE_DIR", w.dir.Root)
	t.Setenv("HOME", root)
	in, agentWrites := io.Pipe()
	agentReads, out := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- cli.Run(t.Context(), []string{"mcp", "--allow-path", root, "--allow-vm", "mine"}, cli.Streams{In: in, Out: out, Err: t.Output()}, cli.Build{Version: "v0"})
	}()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1"}, nil).Connect(t.Context(), &mcp.IOTransport{Reader: agentReads, Writer: agentWrites}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := session.InitializeResult().ServerInfo; got.Name != "banger" || got.Version != "v0" {
		t.Errorf("the server is %+v", got)
	}
	// use gives what a tool answers, as JSON: an error, or its result.
	use := func(tool string, args map[string]any) string {
		t.Helper()
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: args})
		if err != nil {
			t.Fatalf("%s: %v", tool, err)
		}
		if result.IsError {
			return result.Content[0].(*mcp.TextContent).Text
		}
		b, err := json.Marshal(result.StructuredContent)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	guest := filepath.Join(root, "guest") // the files of a machine that runs are this computer's
	big := strings.Repeat("0123456789", 100_000)
	for _, step := range []struct {
		tool string
		args map[string]any
		want string
	}{
		{"vm_create", map[string]any{"name": "files", "vcpu": 1, "memory_mib": 256, "disk_mib": 1024, "net": "allow=github.com"}, `"net":"allow=github.com"`},
		{"vm_show", map[string]any{"vm": "files"}, `"memory_mib":256`},
		{"vm_show", map[string]any{"vm": "files"}, `"state":"running"`},
		{"vm_create", map[string]any{"name": "files"}, "conflict: "},
		{"vm_create", map[string]any{"name": "Bad_Name"}, "invalid: "},
		{"vm_create", map[string]any{"memory_mib": 1 << 24}, "refused: "},
		{"vm_create", map[string]any{"disk_mib": 1<<44 + 1024}, "invalid: "},
		{"vm_create", map[string]any{"disk_mib": 1}, "invalid: "},
		{"vm_create", map[string]any{"no_such_field": 1}, "no_such_field"},
		{"vm_net_show", map[string]any{"vm": "files"}, `"net":"allow=github.com"`},
		{"vm_net_set", map[string]any{"vm": "files", "net": "none"}, `"net":"none"`},
		{"vm_net_check", map[string]any{"vm": "files", "targets": []string{"https://github.com"}}, `"allowed":false`},
		{"vm_net_set", map[string]any{"vm": "files", "net": "full,allow=10.0.0.0/8"}, "refused: "},
		{"workspace_status", map[string]any{"vm": "files"}, "not_found: "},
		{"workspace_prepare", map[string]any{"vm": "files", "path": "/"}, "refused: "},
		{"vm_write_file", map[string]any{"vm": "files", "path": guest + "/a/b/c", "content": big, "mode": "0750"}, `"bytes":1000000`},
		{"vm_read_file", map[string]any{"vm": "files", "path": guest + "/a/b/c", "offset": 500_003, "limit": 4}, `"content":"3456"`},
		{"vm_read_file", map[string]any{"vm": "files", "path": guest + "/a/b/c", "limit": 1}, `"mode":"0750"`},
		{"vm_write_file", map[string]any{"vm": "files", "path": guest + "/a/b/c", "content": "/wA=", "encoding": "base64"}, `"mode":"0750"`},
		{"vm_read_file", map[string]any{"vm": "files", "path": guest + "/a/b/c"}, `"content":"/wA="`},
		{"vm_read_file", map[string]any{"vm": "files", "path": guest + "/a"}, "invalid: "},
		{"vm_read_file", map[string]any{"vm": "files", "path": guest + "/none"}, "not_found: "},
		{"vm_write_file", map[string]any{"vm": "files", "path": guest + "/a/b", "content": ""}, "conflict: "},
		{"vm_write_file", map[string]any{"vm": "files", "path": guest + "/a/b/c/d", "content": ""}, ": "},
		{"vm_stop", map[string]any{"vm": "files"}, `"state":"stopped"`},
		{"vm_read_file", map[string]any{"vm": "files", "path": "/etc/motd"}, `"content":"hello\n"`},
		{"vm_read_file", map[string]any{"vm": "files", "path": "/etc/link"}, `"mode":"0640"`},
		{"vm_read_file", map[string]any{"vm": "files", "path": "/etc/tty"}, "invalid: "},
		{"vm_write_file", map[string]any{"vm": "files", "path": guest + "/stopped", "content": "x"}, `"bytes":1`},
		{"vm_exec", map[string]any{"vm": "files", "argv": []string{"true"}}, "conflict: "},
		{"workspace_push", map[string]any{"vm": "files"}, "conflict: "},
		{"vm_ports", map[string]any{"vm": "files"}, "conflict: "},
		{"vm_start", map[string]any{"vm": "files"}, `"state":"running"`},
		{"vm_delete", map[string]any{"vm": "files"}, "conflict: "},
		{"vm_list", nil, `"others":0`},
		{"vm_delete", map[string]any{"vm": "files", "force": true}, `"name":"files"`},
		{"vm_show", map[string]any{"vm": "files"}, "not_found: "},
	} {
		if got := use(step.tool, step.args); !strings.Contains(got, step.want) {
			t.Errorf("%s %.300v: %.2000s, want it to have %s", step.tool, step.args, got, step.want)
		}
	}
	if err := session.Close(); err != nil {
		t.Error(err)
	}
	agentWrites.Close()
	if got := <-status; got != 0 {
		t.Errorf("banger mcp ended with status %d", got)
	}
}
