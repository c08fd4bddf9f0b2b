package mcp

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"banger"
	"banger/api"
	"banger/internal/machine"
	"banger/internal/project"
	"banger/internal/workspace"
)

// host is banger with VMs in memory. What goes beyond what agents may have is decided by package project, as in the commands.
type host struct {
	mu    sync.Mutex
	vms   map[string]*api.VMDetail // by id
	files map[string]*tar.Header   // by path, the same for all VMs
	data  map[string][]byte
	dirs  map[string]bool
	saves []banger.Autosave
	used  []string // commands that did something
	hear  Listener // of the last call
	exec  func(ctx context.Context, cmd Command) (int, error)
}

func newHost() *host {
	return &host{vms: map[string]*api.VMDetail{}, files: map[string]*tar.Header{}, data: map[string][]byte{}, dirs: map[string]bool{"/": true, "/root": true}}
}

func (h *host) use(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used = append(h.used, what)
}

// addVM makes one as a person does.
func (h *host) addVM(name string, labels map[string]string) *api.VMDetail {
	vm := &api.VMDetail{}
	vm.ID = banger.VMID(fmt.Sprintf("%012x", len(h.vms)+1))
	vm.Spec = banger.VMSpec{Name: name, Image: "debian", VCPU: 2, MemoryMiB: 1024, DiskBytes: 8 << 30, Labels: labels}
	vm.State = banger.StateRunning
	h.vms[string(vm.ID)] = vm
	return vm
}

func (h *host) Needs(_ context.Context, wish project.Settings, limit banger.NetPolicy) ([]project.Need, banger.NetPolicy, error) {
	def := limit.Or(banger.NetFull)
	return wish.Needs("", project.Host{Net: def, Image: "debian", VCPU: 8, Memory: 8 << 30, Disk: 64 << 30, SignedIn: func(string) bool { return false }}), def, nil
}

func (h *host) Create(_ context.Context, vm NewVM) (api.VMDetail, error) {
	h.use("create")
	h.hear.Progress.Begin("disk", "making it")()
	made := h.addVM(or(vm.Name, "made-up"), vm.Labels)
	made.Spec.Net, made.Spec.Env = vm.Net.Set, vm.Env
	if vm.Repository != nil {
		made.Workspaces = []banger.Workspace{{GuestPath: "/root/repo", HostPath: vm.Repository.Path}}
	}
	return *made, nil
}

func (h *host) List(context.Context) (list []banger.VM, err error) {
	for _, id := range slices.Sorted(maps.Keys(h.vms)) {
		list = append(list, h.vms[id].VM)
	}
	return list, nil
}

func (h *host) Show(_ context.Context, ref string) (api.VMDetail, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, vm := range h.vms {
		if id == ref || vm.Spec.Name == ref {
			return *vm, nil
		}
	}
	return api.VMDetail{}, &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: ref, Hint: "banger vm list"}
}

func (h *host) Start(context.Context, string) error { h.use("start"); return nil }

func (h *host) Stop(_ context.Context, ref string, _ time.Duration) error {
	h.use("stop")
	h.vms[ref].State = banger.StateStopped
	return nil
}

func (h *host) Delete(_ context.Context, ref string, force bool) error {
	h.use("delete")
	if !force && h.vms[ref].State == banger.StateRunning {
		return &banger.Error{Kind: banger.ErrConflict, Op: "vm", Subject: ref, Err: errors.New("it is running")}
	}
	h.saves = append(h.saves, banger.Autosave{ID: "save", VMID: h.vms[ref].ID, VM: h.vms[ref].Spec.Name, HostPath: "/src/app", Refs: map[string]string{"refs/banger/x/head": "abc"}})
	delete(h.vms, ref)
	return nil
}

func (h *host) Exec(ctx context.Context, _ string, cmd Command) (int, error) {
	h.use("exec")
	return h.exec(ctx, cmd)
}

func (h *host) CopyOut(_ context.Context, _, name string, w io.Writer) error {
	h.use("out")
	out := tar.NewWriter(w)
	header, ok := h.files[name]
	switch {
	case h.dirs[name]:
		header = &tar.Header{Typeflag: tar.TypeDir, Name: path.Base(name) + "/", Mode: 0o755}
	case !ok:
		return &banger.Error{Kind: banger.ErrNotFound, Op: "file", Subject: name}
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	if _, err := out.Write(h.data[name]); err != nil {
		return err
	}
	return out.Close()
}

func (h *host) CopyIn(_ context.Context, _, dir string, r io.Reader) error {
	h.use("in")
	if !h.dirs[dir] {
		return &banger.Error{Kind: banger.ErrNotFound, Op: "directory", Subject: dir}
	}
	for in := tar.NewReader(r); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at := path.Join(dir, header.Name)
		if header.Typeflag == tar.TypeDir {
			h.dirs[at] = true
			continue
		}
		h.files[at] = header
		if h.data[at], err = io.ReadAll(in); err != nil {
			return err
		}
	}
}

func (h *host) Ports(context.Context, string) (machine.Ports, string, error) {
	h.use("ports")
	return machine.Ports{}, "", nil
}

func (h *host) SetNet(_ context.Context, ref string, change banger.NetChange) (banger.NetPolicy, error) {
	h.use("net")
	h.vms[ref].Spec.Net = change.Set
	return change.Set, nil
}

func (h *host) NetLog(_ context.Context, _ string, each func(banger.NetEvent) error) error {
	h.use("log")
	return each(banger.NetEvent{Verdict: banger.NetDenied, Name: "evil\x1b[2J.example", Port: 443})
}

func (h *host) CheckNet(context.Context, banger.NetPolicy, []string) ([]Check, error) {
	h.use("check")
	return nil, nil
}

func (h *host) Prepare(context.Context, string, Repository, bool) error { h.use("prepare"); return nil }

func (h *host) Status(context.Context, string, string) (workspace.Status, error) {
	h.use("status")
	return workspace.Status{}, nil
}

func (h *host) Diff(context.Context, string, string, io.Writer) error { h.use("diff"); return nil }

func (h *host) Pull(context.Context, string, string) (map[string]string, []string, error) {
	h.use("pull")
	return nil, nil, nil
}

func (h *host) Push(context.Context, string, string) (workspace.Pushed, error) {
	h.use("push")
	return workspace.Pushed{}, nil
}

func (h *host) Autosaves(context.Context) ([]banger.Autosave, error) { return h.saves, nil }

// agent is a client of a server.
type agent struct {
	*testing.T
	session *sdk.ClientSession
	ended   chan error
}

func connect(t *testing.T, h *host, cfg Config) agent {
	t.Helper()
	return connectWith(t, h, cfg, nil)
}

func connectWith(t *testing.T, h *host, cfg Config, options *sdk.ClientOptions) agent {
	t.Helper()
	cfg.Commands = func(l Listener) Commands {
		l.Notice("a note\x1b")
		h.mu.Lock()
		defer h.mu.Unlock()
		h.hear = l
		return h
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	here, there := sdk.NewInMemoryTransports()
	a := agent{T: t, ended: make(chan error, 1)}
	go func() { a.ended <- New(cfg).Serve(t.Context(), there) }()
	client := sdk.NewClient(&sdk.Implementation{Name: "agent", Version: "1"}, options)
	var err error
	if a.session, err = client.Connect(t.Context(), here, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.session.Close() })
	return a
}

// try uses a tool; text is its error, or empty.
func (a agent) try(tool string, args, out any) (text string) {
	a.Helper()
	result, err := a.session.CallTool(a.Context(), &sdk.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		a.Fatalf("%s: %v", tool, err)
	}
	if result.IsError {
		return result.Content[0].(*sdk.TextContent).Text
	}
	b, err := json.Marshal(result.StructuredContent)
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		a.Fatalf("%s gave %s: %v", tool, b, err)
	}
	return ""
}

func (a agent) must(tool string, args, out any) {
	a.Helper()
	if text := a.try(tool, args, out); text != "" {
		a.Fatalf("%s %v: %s", tool, args, text)
	}
}

func (a agent) refuses(tool string, args any, want ...string) {
	a.Helper()
	text := a.try(tool, args, nil)
	for _, part := range want {
		if !strings.Contains(text, part) {
			a.Errorf("%s %v: %q, want an error with %q", tool, args, text, part)
		}
	}
}

type m = map[string]any

// Every tool and every field of its input and output is described, and says what it does to what is there.
func TestDescriptions(t *testing.T) {
	a := connect(t, newHost(), Config{})
	list, err := a.session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Tools) < 20 {
		t.Errorf("%d tools", len(list.Tools))
	}
	for _, tool := range list.Tools {
		if tool.Title == "" || len(tool.Description) < 40 || tool.Annotations == nil || tool.Annotations.DestructiveHint == nil || tool.Annotations.OpenWorldHint == nil {
			t.Errorf("%s lacks a title, a description or annotations", tool.Name)
		}
		if tool.Annotations.ReadOnlyHint && *tool.Annotations.DestructiveHint {
			t.Errorf("%s only reads, and destroys", tool.Name)
		}
		described(t, tool.Name+" input", tool.InputSchema)
		described(t, tool.Name+" output", tool.OutputSchema)
	}
}

func described(t *testing.T, where string, schema any) {
	t.Helper()
	object, _ := schema.(map[string]any)
	if _, ok := object["type"].(string); !ok {
		t.Errorf("%s is of type %v, want one", where, object["type"])
	}
	if properties, ok := object["properties"].(map[string]any); ok {
		for name, property := range properties {
			if text, _ := property.(map[string]any)["description"].(string); text == "" {
				t.Errorf("%s: %s has no description", where, name)
			}
			described(t, where+" "+name, property)
		}
	}
	if items, ok := object["items"]; ok {
		described(t, where, items)
	}
}

// minimal are arguments with which every tool that names a VM would do something.
func minimal(tool, vm string) m {
	args := m{"vm": vm}
	maps.Copy(args, map[string]m{
		"vm_exec": {"argv": []string{"true"}}, "vm_read_file": {"path": "/root/x"}, "vm_write_file": {"path": "/root/x", "content": "x"}, "vm_net_set": {"net": "none"},
		"vm_net_check": {"targets": []string{"example.org"}}, "vm_delete": {"force": true}, "workspace_prepare": {"path": "."},
	}[tool])
	return args
}

// No tool does anything to a VM that no agent has made, unless the user has named it.
func TestOnlyOwnVMs(t *testing.T) {
	h := newHost()
	h.exec = func(context.Context, Command) (int, error) { return 0, nil }
	h.files["/root/x"] = &tar.Header{Name: "x", Mode: 0o644}
	here, _ := filepath.EvalSymlinks(t.TempDir())
	t.Chdir(here)
	theirs := h.addVM("theirs", map[string]string{"mcp": "no"})
	theirs.Workspaces = []banger.Workspace{{GuestPath: "/root/repo", HostPath: here}}
	a, named := connect(t, h, Config{Paths: []string{here}}), connect(t, h, Config{VMs: []string{"theirs"}, Paths: []string{here}})
	list, err := a.session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, tool := range list.Tools {
		properties := tool.InputSchema.(map[string]any)["properties"]
		if properties == nil || properties.(map[string]any)["vm"] == nil || tool.Name == "vm_delete" {
			continue
		}
		tried++
		for _, ref := range []string{"theirs", string(theirs.ID)} {
			a.refuses(tool.Name, minimal(tool.Name, ref), "refused", "--allow-vm theirs")
		}
		if len(h.used) > 0 {
			t.Fatalf("%s did %v", tool.Name, h.used)
		}
		named.must(tool.Name, minimal(tool.Name, "theirs"), nil)
		h.used = nil
	}
	if tried < 15 {
		t.Errorf("%d tools were tried", tried)
	}
	a.refuses("vm_delete", minimal("vm_delete", "theirs"), "refused")
	var out listOut
	a.must("vm_list", m{}, &out)
	if len(out.VMs) != 0 || out.Others != 1 {
		t.Errorf("vm_list: %+v", out)
	}
	named.must("vm_list", m{}, &out)
	if len(out.VMs) != 1 || out.Others != 0 {
		t.Errorf("vm_list with --allow-vm: %+v", out)
	}
}

func TestLimits(t *testing.T) {
	h := newHost()
	a := connect(t, h, Config{})
	for _, args := range []m{
		{"net": "full,allow=host:8080"}, {"net": "allow=10.0.0.0/8"}, {"net": "full,allow=vm:db"}, {"image": "mine"}, {"image": "10.0.0.1:5000/x"}, {"image": "localhost/x:1"},
		{"memory_mib": 9000}, {"vcpu": 9}, {"disk_mib": 65 << 10},
	} {
		a.refuses("vm_create", args, "refused", "beyond what agents may have")
	}
	if len(h.used) > 0 {
		t.Errorf("did %v", h.used)
	}
	var vm vmInfo
	a.must("vm_create", m{"name": "one", "image": "alpine:3", "net": "allow=github.com", "env": m{"A": "b"}}, &vm)
	if vm.Net != "allow=github.com" || h.vms[vm.ID].Spec.Labels[Label] != Made || h.vms[vm.ID].Spec.Env["A"] != "b" {
		t.Errorf("made %+v", vm)
	}
	a.refuses("vm_net_set", m{"vm": "one", "net": "full,allow=host:80"}, "refused")
	a.must("vm_net_set", m{"vm": "one", "net": "full"}, nil)

	narrow, err := banger.ParseNetPolicy("allow=github.com,deny=evil.example")
	if err != nil {
		t.Fatal(err)
	}
	b := connect(t, h, Config{Net: narrow, Images: []string{"mine"}, VMs: []string{"devbox"}})
	b.refuses("vm_create", m{"net": "full"}, "refused")
	b.must("vm_create", m{"name": "two", "image": "mine"}, &vm)
	if vm.Net != narrow.String() {
		t.Errorf("without a wish the network is %s", vm.Net)
	}
	b.must("vm_net_set", m{"vm": "two", "net": "allow=github.com"}, nil)
	if got := h.vms[vm.ID].Spec.Net.String(); got != narrow.String() {
		t.Errorf("what is denied does not stay so: %s", got)
	}
	h.addVM("devbox", nil).Spec.Net = banger.NetNone // the user's own is never let out further
	a = connect(t, h, Config{VMs: []string{"devbox"}})
	a.refuses("vm_net_set", m{"vm": "devbox", "net": "full"}, "refused")
	a.refuses("vm_net_set", m{"vm": "devbox", "net": "allow=github.com"}, "refused")
}

func TestDelete(t *testing.T) {
	h := newHost()
	a := connect(t, h, Config{})
	a.must("vm_create", m{"name": "one"}, nil)
	a.refuses("vm_delete", m{"vm": "one"}, "conflict", "it is running")
	var out deleteOut
	a.must("vm_delete", m{"vm": "one", "force": true}, &out)
	if !slices.Equal(out.Notes, []string{`a note\x1b`}) || len(out.Saved) != 1 || out.Saved[0].Refs[0].Name != "refs/banger/x/head" {
		t.Errorf("deleted: %+v", out)
	}
	a.refuses("vm_show", m{"vm": "one"}, "not_found", "hint: banger vm list")
}

// With --rm a server deletes what it has made, and nothing else.
func TestRemove(t *testing.T) {
	h := newHost()
	h.addVM("before", map[string]string{Label: Made})
	a := connect(t, h, Config{Remove: true})
	a.must("vm_create", m{"name": "one"}, nil)
	a.must("vm_create", m{"name": "two"}, nil)
	a.session.Close()
	if err := <-a.ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if left := slices.Collect(maps.Values(h.vms)); len(left) != 1 || left[0].Spec.Name != "before" {
		t.Errorf("left: %v", left)
	}
}

// Standard output has messages of the protocol only; the end of standard input, and a signal, end what goes on.
func TestStdio(t *testing.T) {
	for _, end := range []string{"end of input", "signal"} {
		t.Run(end, func(t *testing.T) {
			h := newHost()
			h.addVM("one", map[string]string{Label: Made})
			begun, hungUp := make(chan struct{}), make(chan struct{})
			h.exec = func(ctx context.Context, cmd Command) (int, error) {
				fmt.Fprintln(cmd.Stdout, "from the guest")
				close(begun)
				<-ctx.Done()
				close(hungUp)
				return 0, &banger.Error{Kind: banger.ErrInterrupted}
			}
			in, agentsEnd := io.Pipe()
			var out bytes.Buffer
			ended := make(chan error, 1)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			go func() {
				ended <- New(Config{Commands: func(Listener) Commands { return h }, Log: slog.New(slog.DiscardHandler)}).Run(ctx, in, &out)
			}()
			for _, line := range []string{
				`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"a","version":"1"}}}`,
				`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
				`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"vm_exec","arguments":{"vm":"one","argv":["sleep","inf"]}}}`,
			} {
				fmt.Fprintln(agentsEnd, line)
			}
			<-begun
			var want error
			if end == "signal" {
				want = errors.New("a signal")
				cancel(want)
			} else {
				agentsEnd.Close()
			}
			<-hungUp
			if err := <-ended; err != want {
				t.Errorf("it ended with %v, want %v", err, want)
			}
			if !strings.Contains(out.String(), `"serverInfo"`) {
				t.Errorf("standard output has %q", out.String())
			}
			for line := range strings.Lines(out.String()) {
				var message struct{ JSONRPC string }
				if err := json.Unmarshal([]byte(line), &message); err != nil || message.JSONRPC != "2.0" {
					t.Errorf("standard output has %q", line)
				}
			}
			agentsEnd.Close()
		})
	}
}

// An agent that wants to know hears how far a call is.
func TestProgress(t *testing.T) {
	heard := make(chan string, 10)
	a := connectWith(t, newHost(), Config{}, &sdk.ClientOptions{ProgressNotificationHandler: func(_ context.Context, req *sdk.ProgressNotificationClientRequest) {
		heard <- fmt.Sprint(req.Params.ProgressToken, " ", req.Params.Progress, " ", req.Params.Message)
	}})
	params := &sdk.CallToolParams{Name: "vm_create", Arguments: m{}}
	params.SetProgressToken("mine")
	if _, err := a.session.CallTool(t.Context(), params); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mine 1 disk: making it", "mine 2 disk: done"} {
		if got := <-heard; got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
}

func TestSafeText(t *testing.T) {
	h := newHost()
	vm := h.addVM("one", map[string]string{Label: Made})
	vm.LastError = "bad \x1b]0;title\x07 \xff"
	a := connect(t, h, Config{})
	var info vmInfo
	a.must("vm_show", m{"vm": "one"}, &info)
	if want := `bad \x1b]0;title\a \xff`; info.Error != want {
		t.Errorf("error %q, want %q", info.Error, want)
	}
	var log netLogOut
	a.must("vm_net_log", m{"vm": "one"}, &log)
	if want := `evil\x1b[2J.example:443`; log.Events[0].Target != want {
		t.Errorf("target %q, want %q", log.Events[0].Target, want)
	}
}

// TestTable holds that docs/agents.md lists the tools as they are.
func TestTable(t *testing.T) {
	const name, begin, end = "../../docs/agents.md", "<!-- tools -->\n", "<!-- end of tools -->\n"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table of tools", name)
	}
	want := New(Config{Log: slog.New(slog.DiscardHandler)}).Table()
	if *update {
		if err := os.WriteFile(name, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if table != want {
		t.Errorf("the table of tools in %s is another one: go test ./internal/mcp -run TestTable -update", name)
	}
}
