package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/api"
	"banger/client"
	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/proc"
	"banger/internal/statedir"
)

// vms is a lifecycle manager that remembers what it was asked.
type vms struct {
	all    map[string]banger.VM
	holder *proc.Handle
	req    api.CreateRequest
	waits  chan struct{}                                                 // Wait sends before it waits without end
	making func(ctx context.Context, progress banger.ProgressFunc) error // by Create, if it is set

	starting func(ctx context.Context, progress banger.ProgressFunc) error // by Start, if it is set

	base, disk string          // files of an image and a disk
	cut        context.Context // ends what ReadFiles gives, if it is set
	lent       chan struct{}   // Lend sends when a loan has ended
}

func (v *vms) get(ref string) (banger.VM, error) {
	vm, ok := v.all[ref]
	if !ok {
		return vm, &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: ref, Hint: "did you mean devbox?"}
	}
	return vm, nil
}

func (v *vms) Create(ctx context.Context, req api.CreateRequest, holder *proc.Handle, progress banger.ProgressFunc) (banger.VM, error) {
	if v.making != nil {
		return banger.VM{ID: "000000000001", Spec: banger.VMSpec{Name: req.Name}}, v.making(ctx, progress)
	}
	v.req, v.holder = req, holder
	progress.Begin("disk", "applying work seed")()
	if req.Name == "late" {
		return banger.VM{}, &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("no space left"), Hint: "df"}
	}
	return banger.VM{ID: "000000000001", Spec: banger.VMSpec{Name: req.Name}}, nil
}

func (v *vms) Start(ctx context.Context, ref string, _ api.StartRequest, progress banger.ProgressFunc) (banger.VM, error) {
	if v.starting != nil {
		if err := v.starting(ctx, progress); err != nil {
			return banger.VM{}, err
		}
	}
	return v.get(ref)
}

func (v *vms) Stop(_ context.Context, ref string, timeout time.Duration, _ banger.ProgressFunc) (banger.VM, error) {
	if timeout != 3*time.Second {
		return banger.VM{}, banger.Invalidf("timeout %s", timeout)
	}
	return v.get(ref)
}

func (v *vms) Delete(_ context.Context, ref string, force bool, _ banger.ProgressFunc) (banger.VM, error) {
	if !force {
		return banger.VM{}, &banger.Error{Kind: banger.ErrConflict, Op: "delete vm", Subject: ref}
	}
	return v.get(ref)
}

func (v *vms) Discard(_ context.Context, ref string, _ banger.ProgressFunc) (banger.VM, error) {
	return v.get(ref)
}

func (v *vms) List(context.Context) ([]banger.VM, error) {
	list := []banger.VM{}
	for _, vm := range v.all {
		list = append(list, vm)
	}
	return list, nil
}

func (v *vms) Show(ctx context.Context, ref string) (api.VMDetail, error) {
	vm, err := v.get(ref)
	return v.Detail(ctx, vm), err
}

func (v *vms) DeleteImage(_ context.Context, ref string) (banger.Image, error) {
	if ref != "debian" {
		return banger.Image{}, &banger.Error{Kind: banger.ErrConflict, Op: "delete image", Subject: ref, Err: errors.New("1 VM uses it: devbox")}
	}
	return banger.Image{Name: ref}, nil
}

// imageList stands for the image manager.
type imageList struct{}

func (imageList) List() ([]banger.Image, error) { return []banger.Image{{Name: "debian"}}, nil }

func (imageList) Resolve(ref string) (banger.Image, error) {
	if ref != "debian" {
		return banger.Image{}, &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: ref}
	}
	return banger.Image{Name: ref}, nil
}

func (imageList) Import(_ context.Context, req api.ImportRequest, progress banger.ProgressFunc) (banger.Image, error) {
	progress.Report(banger.Progress{Stage: "image", Text: "importing image " + req.Name})
	if req.Path != "/there" {
		return banger.Image{}, &banger.Error{Kind: banger.ErrNotFound, Op: "import image", Subject: req.Path}
	}
	return banger.Image{Name: req.Name, Boot: req.Boot, Source: req.Path}, nil
}

func (imageList) Build(_ context.Context, req api.BuildRequest, _ banger.ProgressFunc) (banger.Image, error) {
	return banger.Image{Name: req.Name, Source: req.From}, nil
}

func (imageList) Pull(_ context.Context, req api.PullRequest, progress banger.ProgressFunc) (banger.Image, error) {
	progress.Report(banger.Progress{Stage: "image", Text: "pulling image " + req.Ref})
	return banger.Image{Name: req.Name, Boot: req.Boot, Source: fmt.Sprintf("%s %v", req.Ref, req.Insecure)}, nil
}

func (v *vms) Detail(_ context.Context, vm banger.VM) api.VMDetail {
	return api.VMDetail{VM: vm, Dir: "/dir"}
}

type served struct {
	dir  statedir.Dir
	vms  *vms
	log  *bytes.Buffer
	ends chan struct{}
	*daemon.Server
	*client.Client
}

// shutdown asks the daemon to end and does not wait for it.
func (s *served) shutdown(ctx context.Context, force bool) error {
	url := "http://bangerd/v1/shutdown?force=" + strconv.FormatBool(force)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.dir.DaemonSocket())
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var wire banger.ErrorBody
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(&wire); err != nil {
		return err
	}
	return wire.Decode()
}

func serve(t *testing.T, uid int) *served {
	t.Helper()
	root, err := os.MkdirTemp("", "bd") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	s := &served{dir: statedir.Dir{Root: filepath.Join(root, "s")}, log: &bytes.Buffer{}, ends: make(chan struct{}, 1),
		vms: &vms{waits: make(chan struct{}), all: map[string]banger.VM{"devbox": {ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}}}}
	if err := s.dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.dir.DaemonSocket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = daemon.New(daemon.Config{VMs: s.vms, Log: slog.New(slog.NewJSONHandler(s.log, nil)),
		Images:  imageList{},
		Kernels: kernelList{},
		Catalog: catalogOf(),
		Saves:   saveList{},
		Status:  func(context.Context) (api.Status, error) { return api.Status{PID: 42}, nil },
		Settings: func(context.Context) ([]banger.Setting, error) {
			return []banger.Setting{{Key: "vm.max_memory", Value: "80%", From: config.BuiltIn}}, nil
		},
		Shutdown: func() { s.ends <- struct{}{} },
		Identify: func(pid int) (proc.Handle, error) { return proc.Handle{PID: pid, StartTime: 9}, nil },
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener, uid) }()
	t.Cleanup(func() {
		s.Server.Close(context.Background())
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	if s.Client, err = client.DialExisting(t.Context(), client.Config{StateDir: s.dir.Root}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Client.Close)
	return s
}

func TestRequests(t *testing.T) {
	s := serve(t, os.Getuid())
	ctx := t.Context()
	if list, err := s.ListVMs(ctx); err != nil || len(list) != 1 || list[0].Spec.Name != "devbox" {
		t.Errorf("ListVMs = %v, %v", list, err)
	}
	if images, err := s.Images(ctx); err != nil || len(images) != 1 {
		t.Errorf("Images = %v, %v", images, err)
	}
	if image, err := s.ShowImage(ctx, "debian"); err != nil || image.Name != "debian" {
		t.Errorf("ShowImage = %v, %v", image, err)
	}
	if _, err := s.ShowImage(ctx, "none"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("ShowImage of none: %v", err)
	}
	if image, err := s.DeleteImage(ctx, "debian"); err != nil || image.Name != "debian" {
		t.Errorf("DeleteImage = %v, %v", image, err)
	}
	if _, err := s.DeleteImage(ctx, "used"); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "devbox") {
		t.Errorf("DeleteImage of a used one: %v", err)
	}
	var told string
	image, err := s.ImportImage(ctx, api.ImportRequest{Name: "app", Path: "/there", Boot: banger.BootSystem}, func(p banger.Progress) { told = p.Text })
	if err != nil || image.Name != "app" || image.Boot != banger.BootSystem || image.Source != "/there" || told != "importing image app" {
		t.Errorf("ImportImage = %+v, %v, told %q", image, err, told)
	}
	image, err = s.PullImage(ctx, api.PullRequest{Ref: "alpine:3", Name: "app", Insecure: true}, nil)
	if err != nil || image.Name != "app" || image.Source != "alpine:3 true" {
		t.Errorf("PullImage = %+v, %v", image, err)
	}
	for path, kind := range map[string]error{"/elsewhere": banger.ErrNotFound, "there": banger.ErrInvalid} {
		if _, err := s.ImportImage(ctx, api.ImportRequest{Name: "app", Path: path}, nil); !errors.Is(err, kind) {
			t.Errorf("ImportImage of %s: %v", path, err)
		}
	}
	if status, err := s.Status(ctx); err != nil || status.PID != 42 {
		t.Errorf("Status = %v, %v", status, err)
	}
	if vm, err := s.ShowVM(ctx, "devbox"); err != nil || vm.Dir != "/dir" || vm.ID != "0123456789ab" {
		t.Errorf("ShowVM = %+v, %v", vm, err)
	}
	for _, ref := range []string{"dexbox", "a/b", "../x", "%2e", "a b?c#d", "é"} {
		_, err := s.ShowVM(ctx, ref)
		if !errors.Is(err, banger.ErrNotFound) || !strings.Contains(err.Error(), ref) || banger.HintOf(err) != "did you mean devbox?" {
			t.Errorf("ShowVM(%q) = %v (hint %q), want not found with the reference", ref, err, banger.HintOf(err))
		}
	}
	if _, err := s.StopVM(ctx, "devbox", 3*time.Second, nil); err != nil {
		t.Errorf("StopVM: %v", err)
	}
	if _, err := s.StartVM(ctx, "devbox", api.StartRequest{}, nil); err != nil {
		t.Errorf("StartVM: %v", err)
	}
	if _, err := s.DeleteVM(ctx, "devbox", false, nil); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("DeleteVM = %v, want a conflict", err)
	}
	if vm, err := s.DeleteVM(ctx, "devbox", true, nil); err != nil || vm.Spec.Name != "devbox" {
		t.Errorf("DeleteVM with force = %v, %v", vm, err)
	}
}

func TestCreateStreams(t *testing.T) {
	s := serve(t, os.Getuid())
	var stages []banger.Progress
	cpus := 2
	req := api.CreateRequest{Name: "x", VCPU: &cpus, Env: map[string]string{"A": "b\x01\""}, Remove: true}
	vm, err := s.CreateVM(t.Context(), req, func(p banger.Progress) { stages = append(stages, p) })
	if err != nil || vm.Spec.Name != "x" || len(stages) != 2 || !stages[1].Done || stages[0].Text != "applying work seed" {
		t.Errorf("CreateVM = %+v, %v, progress %+v", vm, err, stages)
	}
	if s.vms.holder == nil || s.vms.holder.PID != os.Getpid() || *s.vms.req.VCPU != 2 || s.vms.req.Env["A"] != req.Env["A"] {
		t.Errorf("the manager got %+v, holder %+v, want this process", s.vms.req, s.vms.holder)
	}
	_, err = s.CreateVM(t.Context(), api.CreateRequest{Name: "late"}, nil)
	var e *banger.Error
	if !errors.Is(err, banger.ErrUnavailable) || banger.HintOf(err) != "df" || !errors.As(err, &e) || !strings.HasPrefix(e.OpID, "op-") || len(e.OpID) != 11 {
		t.Errorf("an error behind progress = %#v, want kind, hint and operation id", err)
	}
	if s.vms.holder != nil {
		t.Error("a lease nobody asked for")
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skipf("needs an ordinary user: root may always connect")
	}
	s := serve(t, os.Getuid()+1)
	if _, err := s.ListVMs(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("ListVMs as another user = %v, want unavailable", err)
	}
}

func TestShutdown(t *testing.T) {
	s := serve(t, os.Getuid())
	r := s.raw(t, "POST /v1/shutdown HTTP/1.1\r\nHost: x\r\n\r\n")
	if r.StatusCode != http.StatusOK {
		t.Errorf("shutdown by a client of no version: %s, want OK", r.Status)
	}
	<-s.ends
}

// raw sends bytes and reads one answer.
func (s *served) raw(t *testing.T, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("unix", s.dir.DaemonSocket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestBadRequests(t *testing.T) {
	s := serve(t, os.Getuid())
	body := func(method, path, body, header string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: x\r\n" + header + "Content-Length: " + itoa(len(body)) + "\r\n\r\n" + body
	}
	const version = api.VersionHeader + ": 1\r\n"
	for _, tc := range []struct {
		what, request string
		kind, text    string
	}{
		{"no version", body("GET", "/v1/vms", "", ""), "unsupported", "daemon"},
		{"other version", body("GET", "/v1/vms", "", api.VersionHeader+": 2\r\n"), "unsupported", "daemon"},
		{"no JSON", body("POST", "/v1/vms", "x", version), "invalid", "decode"},
		{"unknown field", body("POST", "/v1/vms", `{"nam":"x"}`, version), "invalid", "nam"},
		{"two values", body("POST", "/v1/vms", `{} {}`, version), "invalid", "follows"},
		{"too large", body("POST", "/v1/vms", `{"name":"`+strings.Repeat("x", 1<<20)+`"}`, version), "invalid", "large"},
		{"bad force", body("DELETE", "/v1/vms/x?force=maybe", "", version), "invalid", "maybe"},
		{"unknown route", body("GET", "/v2/vms", "", version), "unsupported", "/v2/vms"},
	} {
		resp := s.raw(t, tc.request)
		var e banger.ErrorBody
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			t.Errorf("%s: %v", tc.what, err)
			continue
		}
		if e.Kind != tc.kind || !strings.Contains(e.Message+e.Hint, tc.text) || e.OpID == "" || e.OpID != resp.Header.Get(api.OpIDHeader) {
			t.Errorf("%s: %+v (operation %s), want %s with %q", tc.what, e, resp.Header.Get(api.OpIDHeader), tc.kind, tc.text)
		}
	}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func TestLogTurnsOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bangerd.log")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 9<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	log, file, err := daemon.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log.Info("hello", "vm", "x")
	text, err := os.ReadFile(path)
	var line map[string]any
	if err != nil || json.Unmarshal(text, &line) != nil || line["msg"] != "hello" {
		t.Errorf("log = %.200q, %v, want one JSON line", text, err)
	}
	if info, err := os.Stat(path + ".1"); err != nil || info.Size() != 9<<20 {
		t.Errorf("the old log: %v, %v", info, err)
	}
}
