package smoke

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"banger/internal/testenv"
)

// agent is a client of "banger mcp", which runs as the world's user.
type agent struct {
	*testing.T
	session *mcp.ClientSession
	cmd     *exec.Cmd
}

func startAgent(t *testing.T, w *testenv.World, args ...string) agent {
	t.Helper()
	cmd := w.Command(t.Context(), append([]string{"mcp"}, args...)...)
	cmd.Stderr = os.Stderr
	client := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &mcp.CommandTransport{Command: cmd, TerminateDuration: 2 * time.Minute}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return agent{t, session, cmd}
}

// end closes standard input and wants the server to end by itself, with status 0.
func (a agent) end() {
	a.Helper()
	if err := a.session.Close(); err != nil {
		a.Errorf("banger mcp ended with %v", err)
	}
}

type object = map[string]any

// try uses a tool; text is its error, or empty.
func (a agent) try(ctx context.Context, tool string, args object, out any) (text string, err error) {
	a.Helper()
	result, err := a.session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		return "", err
	}
	if result.IsError {
		return result.Content[0].(*mcp.TextContent).Text, nil
	}
	b, err := json.Marshal(result.StructuredContent)
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	return "", err
}

func (a agent) must(tool string, args object, out any) {
	a.Helper()
	if text, err := a.try(a.Context(), tool, args, out); text != "" || err != nil {
		a.Fatalf("%s %v: %s %v", tool, args, text, err)
	}
}

func (a agent) refused(tool string, args object, want ...string) {
	a.Helper()
	text, err := a.try(a.Context(), tool, args, nil)
	for _, part := range want {
		if err != nil || !strings.Contains(text, part) {
			a.Errorf("%s %v: %q %v, want an error with %q", tool, args, text, err, part)
		}
	}
}

type execResult struct {
	ExitStatus  int    `json:"exit_status"`
	TimedOut    bool   `json:"timed_out"`
	Stdout      string `json:"stdout"`
	Stderr      string `json:"stderr"`
	StdoutBytes int    `json:"stdout_bytes"`
	Truncated   bool   `json:"truncated"`
	OutputID    string `json:"output_id"`
}

// exec runs a command in the VM "agent".
func (a agent) exec(args object, argv ...string) (r execResult) {
	a.Helper()
	args["vm"], args["argv"] = "agent", argv
	a.must("vm_exec", args, &r)
	return r
}

// TestAgent has an agent work on a repository through "banger mcp", and touch nothing of the host but refs/banger.
func TestAgent(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	dir := userRepo(t, w)
	before := hostRepo(t, w, dir)
	a := startAgent(t, w, "--allow-path", dir)

	// A repository that asks for more than every VM may have: only the user can say yes.
	userFile(t, w, filepath.Join(dir, ".banger.toml"), "net = \"allow=10.0.0.0/8\"\n")
	a.refused("vm_create", object{"path": dir}, "refused", "10.0.0.0/8", "banger allow "+dir)
	userGit(t, w, dir, "clean", "-q", "-f", ".banger.toml")
	a.refused("vm_create", object{"path": w.State}, "refused", "--allow-path")
	a.refused("vm_create", object{"net": "full,allow=host:22"}, "refused", "host:22")
	w.Must("vm", "create", "--name", "devbox")
	a.refused("vm_start", object{"vm": "devbox"}, "refused", "--allow-vm devbox")

	var vm struct {
		State      string
		Workspaces []struct {
			GuestPath string `json:"guest_path"`
		}
		Notes []string
	}
	a.must("vm_create", object{"name": "agent", "path": dir, "branch": "fix", "env": object{"GREETING": "hello"}}, &vm)
	if vm.State != "running" || len(vm.Workspaces) != 1 || vm.Workspaces[0].GuestPath != "/root/repo" || !strings.Contains(strings.Join(vm.Notes, "\n"), "untracked") {
		t.Errorf("made %+v", vm)
	}

	checkExec(a)
	checkKilled(a)

	// What is done in the VM comes back as a patch and as refs; nothing else of the repository changes.
	a.must("vm_write_file", object{"vm": "agent", "path": "/root/repo/src/new.c", "content": "int new;\n"}, nil)
	a.must("vm_write_file", object{"vm": "agent", "path": "/root/repo/docs/a/b", "content": "AP8=", "encoding": "base64", "mode": "0755"}, nil)
	if r := a.exec(object{}, "sh", "-c", "stat -c '%a %u' docs/a/b; od -An -tx1 docs/a/b; cat src/new.c"); r.Stdout != "755 0\n 00 ff\nint new;\n" {
		t.Errorf("files that were written: %+v", r)
	}
	var file struct{ Content, Encoding string }
	a.must("vm_read_file", object{"vm": "agent", "path": "/root/repo/README", "offset": 7, "limit": 2}, &file)
	if file.Content != "on" || file.Encoding != "utf-8" {
		t.Errorf("read %+v", file)
	}
	var diff struct{ Patch string }
	a.must("workspace_diff", object{"vm": "agent"}, &diff)
	if !strings.Contains(diff.Patch, "+int new;") {
		t.Errorf("diff: %s", diff.Patch)
	}
	var pulled struct {
		Repository string
		Refs       []struct{ Name, Commit string }
	}
	a.must("workspace_pull", object{"vm": "agent"}, &pulled)
	found := false
	for _, ref := range pulled.Refs {
		if !strings.HasPrefix(ref.Name, "refs/banger/agent/") {
			t.Errorf("pull made %s", ref.Name)
		}
		if strings.HasSuffix(ref.Name, "/untracked") || strings.HasSuffix(ref.Name, "/worktree") {
			found = found || strings.Contains(userGit(t, w, dir, "ls-tree", "-r", "--name-only", ref.Commit), "src/new.c")
		}
	}
	if after := hostRepo(t, w, dir); pulled.Repository != dir || !found || after != before {
		t.Errorf("pulled %+v; the repository was\n%s\nand is\n%s", pulled, before, after)
	}

	// Work since then survives deletion, which wants force while the VM runs.
	a.must("vm_write_file", object{"vm": "agent", "path": "/root/repo/README", "content": "late\n"}, nil)
	a.refused("vm_delete", object{"vm": "agent"}, "conflict", "running")
	a.must("vm_delete", object{"vm": "agent", "force": true}, nil)
	var saves struct {
		Autosaves []struct {
			VM     string
			Landed bool
		}
	}
	a.must("autosave_list", object{}, &saves)
	if len(saves.Autosaves) != 1 || saves.Autosaves[0].VM != "agent" || !saves.Autosaves[0].Landed {
		t.Errorf("kept: %+v", saves)
	}
	if after := hostRepo(t, w, dir); after != before {
		t.Errorf("the repository was\n%s\nand is\n%s", before, after)
	}
	a.end()

	// With --rm the server's VMs go with it, the user's stay; also when it is killed.
	a = startAgent(t, w, "--rm", "--net", "none")
	a.must("vm_create", object{"name": "agent"}, nil)
	a.refused("vm_net_set", object{"vm": "agent", "net": "full"}, "refused")
	a.end()
	onlyDevbox := func() bool {
		list := listVMs(w)
		return len(list) == 1 && list[0].Spec.Name == "devbox"
	}
	if !onlyDevbox() {
		t.Errorf("after --rm there are %+v", listVMs(w))
	}
	a = startAgent(t, w, "--rm")
	a.must("vm_create", object{"name": "agent"}, nil)
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	a.session.Close()
	testenv.WaitFor(t, 2*time.Minute, "the VM of a server that was killed is deleted", onlyDevbox)
}

// checkExec holds that a command gets exactly what it was given, and that long output is told where to be read.
func checkExec(a agent) {
	a.Helper()
	r := a.exec(object{"stdin": "in", "env": object{"X": "a b=c"}}, "sh", "-c", `cat; echo "|$1|$2|$X|$GREETING|$HOME"; pwd; printf '\033[31m\377'; echo err >&2; exit 3`, "sh", "", `*" $x`)
	if want := "in||*\" $x|a b=c|hello|/root\n/root/repo\n\\x1b[31m\\xff"; r.Stdout != want || r.Stderr != "err\n" || r.ExitStatus != 3 || r.Truncated {
		a.Errorf("exec: %+v, want stdout %q", r, want)
	}
	if r := a.exec(object{}, "nosuch"); r.ExitStatus != 127 {
		a.Errorf("a program that is not there: %+v", r)
	}
	r = a.exec(object{"max_output_bytes": 1000, "cwd": "/"}, "seq", "100000")
	if !r.Truncated || !strings.HasPrefix(r.Stdout, "1\n2\n") || !strings.HasSuffix(r.Stdout, "\n100000\n") || len(r.Stdout) > 1300 || r.StdoutBytes != 588895 {
		a.Errorf("long output: %+v", r)
	}
	var rest struct {
		Text string
		End  bool
	}
	a.must("vm_output", object{"output_id": r.OutputID, "offset": r.StdoutBytes - 13, "limit": 1000}, &rest)
	if rest.Text != "99999\n100000\n" || !rest.End {
		a.Errorf("the rest: %+v", rest)
	}
}

// checkKilled holds that a command ends whose time is over, or whose call is cancelled.
func checkKilled(a agent) {
	a.Helper()
	gone := func(file string) {
		a.Helper()
		r := a.exec(object{"timeout_seconds": 60}, "sh", "-c", "while kill -0 $(cat "+file+") 2>/dev/null; do sleep 0.1; done; cat "+file)
		if r.TimedOut || r.ExitStatus != 0 || r.Stdout == "" {
			a.Errorf("the command of %s: %+v", file, r)
		}
	}
	const script = "trap '' HUP; echo $$ > $0; echo begun; sleep 1000"
	if r := a.exec(object{"timeout_seconds": 20}, "sh", "-c", script, "/tmp/timed"); !r.TimedOut || r.Stdout != "begun\n" {
		a.Errorf("a command whose time is over: %+v", r)
	}
	gone("/tmp/timed")

	ctx, cancel := context.WithCancel(a.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := a.try(ctx, "vm_exec", object{"vm": "agent", "argv": []string{"sh", "-c", script, "/tmp/cancelled"}, "timeout_seconds": 600}, nil)
		ended <- err
	}()
	a.exec(object{"timeout_seconds": 60}, "sh", "-c", "until test -s /tmp/cancelled; do sleep 0.1; done")
	cancel()
	if err := <-ended; err == nil {
		a.Error("a call that was cancelled ended well")
	}
	gone("/tmp/cancelled")
}

// hostRepo is all that an agent must not change of a repository: HEAD, branches, index and files.
func hostRepo(t *testing.T, w *testenv.World, dir string) string {
	t.Helper()
	return userGit(t, w, dir, "symbolic-ref", "HEAD") + userGit(t, w, dir, "for-each-ref", "refs/heads", "refs/tags", "refs/remotes", "refs/stash") +
		userGit(t, w, dir, "ls-files", "--stage") + userGit(t, w, dir, "status", "--porcelain") + userGit(t, w, dir, "diff")
}
