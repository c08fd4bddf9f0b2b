package daemon_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/api"
	"banger/internal/schema"
)

// asked is a request and what is expected of its answer.
type asked struct {
	route, ref  string
	query, body string
	status      int // 0: 200
}

// requests make every route answer once with JSON, and some refuse.
var requests = []asked{
	{route: api.RouteStatus},
	{route: api.RouteSettings},
	{route: api.RouteVMList},
	{route: api.RouteVMShow, ref: "devbox"},
	{route: api.RouteVMShow, ref: "nosuch", status: http.StatusNotFound},
	{route: api.RouteVMCreate, body: `{"name":"x","vcpu":2,"env":{"A":"b"},"ttl_ns":60000000000}`},
	{route: api.RouteVMCreate, body: `{"name":"late"}`},
	{route: api.RouteVMCreate, body: `{"name":"x"}`, query: "?detach=true"},
	{route: api.RouteVMCreate, body: `{"nam":"x"}`, status: http.StatusBadRequest},
	{route: api.RouteVMStart, ref: "devbox"},
	{route: api.RouteVMStop, ref: "devbox", body: `{"timeout_ns":3000000000}`},
	{route: api.RouteVMRestart, ref: "devbox", body: `{"timeout_ns":3000000000,"overcommit":true}`},
	{route: api.RouteVMKill, ref: "devbox", body: `{"signal":"TERM"}`},
	{route: api.RouteVMRename, ref: "devbox", body: `{"name":"other"}`},
	{route: api.RouteVMDelete, ref: "devbox", query: "?force=true"},
	{route: api.RouteVMDelete, ref: "devbox", status: http.StatusConflict},
	{route: api.RouteVMResolve, body: `{"refs":["devbox","nosuch"]}`},
	{route: api.RouteVMSet, ref: "devbox", body: `{"vcpu":4,"dry_run":true}`},
	{route: api.RouteVMNet, ref: "devbox", body: `{}`},
	{route: api.RouteVMWorkspace, ref: "devbox", body: `{"host_path":"/repo","guest_path":"/root/repo"}`},
	{route: api.RouteVMWait, ref: "devbox", body: `{"for":"stopped"}`},
	{route: api.RouteVMLend, ref: "nosuch", status: http.StatusNotFound},
	{route: api.RouteStats, query: "?ref=devbox&ref=nosuch"},
	{route: api.RouteImageList},
	{route: api.RouteImageShow, ref: "debian"},
	{route: api.RouteImageImport, body: `{"name":"app","path":"/there"}`},
	{route: api.RouteImageImport, body: `{"name":"app","path":"/elsewhere"}`},
	{route: api.RouteImagePull, body: `{"ref":"alpine:3"}`},
	{route: api.RouteImageBuild, body: `{"name":"mine"}`},
	{route: api.RouteImageRegister, body: `{"name":"mine","rootfs":"/there"}`},
	{route: api.RouteImagePromote, ref: "debian"},
	{route: api.RouteImageBundle, ref: "app", body: `{"dir":"/there"}`},
	{route: api.RouteImageDelete, ref: "debian"},
	{route: api.RouteImagePrune, body: `{"all":true,"dry_run":true}`},
	{route: api.RouteCachePrune, body: `{"dry_run":true}`},
	{route: api.RouteKernelList},
	{route: api.RouteKernelOffers},
	{route: api.RouteKernelShow, ref: "debian"},
	{route: api.RouteKernelImport, body: `{"name":"mine","host":true}`},
	{route: api.RouteKernelPull, body: `{"name":"debian"}`},
	{route: api.RouteKernelBundle, ref: "debian", body: `{"dir":"/there"}`},
	{route: api.RouteKernelDelete, ref: "debian"},
	{route: api.RouteCatalog},
	{route: api.RouteSaveList},
	{route: api.RouteSaveLanded, ref: "one"},
	{route: api.RouteSavePrune},
	{route: api.RouteOperationList},
	{route: api.RouteOperationShow, ref: "nosuch", status: http.StatusNotFound},
	{route: api.RouteOperationFollow, ref: "nosuch", status: http.StatusNotFound},
	{route: api.RouteOperationCancel, ref: "nosuch", status: http.StatusNotFound},
	{route: api.RouteVMFiles, ref: "nosuch", query: "?path=/etc", status: http.StatusNotFound},
	{route: api.RouteImageExport, ref: "none", status: http.StatusNotFound},
	{route: api.RouteShutdown, query: "?force=true"},
}

// saveList stands for the work of deleted VMs.
type saveList struct{}

func (saveList) List() ([]banger.Autosave, error) { return nil, nil }

func (saveList) Landed(ref string) (banger.Autosave, error) {
	return banger.Autosave{ID: ref, Refs: map[string]string{}}, nil
}

func (saveList) Prune(time.Time, time.Duration, bool, bool) ([]banger.Autosave, error) {
	return nil, nil
}

// What the daemon really answers is what its document says: every route, errors and streams too.
func TestAnswersAreAsDocumented(t *testing.T) {
	s := serve(t, os.Getuid())
	answered := map[string]bool{}
	for _, r := range requests {
		t.Run(r.route+r.query, func(t *testing.T) {
			if s.answersAsDocumented(t, r) {
				answered[r.route] = true
			}
		})
	}
	for _, route := range api.Routes {
		elsewhere := route.Pattern == api.RouteVMLend || strings.Contains(route.Pattern, "/operations/") // in the tests below
		if route.Answer != nil && !answered[route.Pattern] && !elsewhere {
			t.Errorf("%s gave no answer here", route.Pattern)
		}
	}
}

// So are those about an operation, while it runs and when it has ended.
func TestOperationsAreAsDocumented(t *testing.T) {
	s := serve(t, os.Getuid())
	g := newGate()
	s.vms.making = g.run
	op := s.detach(t, "devbox")
	<-g.begun
	for _, r := range []asked{
		{route: api.RouteOperationList},
		{route: api.RouteOperationShow, ref: op.ID},
		{route: api.RouteOperationCancel, ref: op.ID},
		{route: api.RouteOperationShow, ref: op.ID},
	} {
		if !s.answersAsDocumented(t, r) {
			t.Errorf("%s gave no answer", r.route)
		}
	}
	if s.answersAsDocumented(t, asked{route: api.RouteOperationFollow, ref: op.ID}) {
		t.Error("the events of a cancelled operation end well")
	}
}

// And so is the stream of a loan, which goes on until its client leaves.
func TestLoanIsAsDocumented(t *testing.T) {
	s := serve(t, os.Getuid())
	s.vms.lent = make(chan struct{}, 1)
	resp := s.ask(t, http.MethodPost, "/v1/vms/devbox/lend", "")
	var last api.Event
	for lines := bufio.NewScanner(resp.Body); last.VM == nil && lines.Scan(); {
		last = api.Event{}
		if err := schema.Check(api.OpenAPI, "/components/schemas/Event", lines.Bytes()); err != nil {
			t.Errorf("%v\n%s", err, lines.Bytes())
		}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			t.Fatal(err)
		}
	}
	if last.VM == nil {
		t.Error("no event has the VM")
	}
}

// answersAsDocumented asks, checks what comes against the document and tells whether it was the answer, not an error.
func (s *served) answersAsDocumented(t *testing.T, r asked) bool {
	method, path, _ := strings.Cut(r.route, " ")
	documented := "/paths/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(path) + "/" + strings.ToLower(method) + "/responses/200/content/"
	resp := s.ask(t, method, strings.Replace(path, "{ref}", r.ref, 1)+r.query, r.body)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := cmp.Or(r.status, http.StatusOK); resp.StatusCode != want {
		t.Fatalf("%s, want %d: %s", resp.Status, want, text)
	}
	media := resp.Header.Get("Content-Type")
	switch {
	case resp.StatusCode != http.StatusOK:
		if err := schema.Check(api.OpenAPI, "/components/schemas/ErrorBody", text); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		return false
	case media == api.MediaEvents:
		return checkEvents(t, documented+"application~1x-ndjson/schema", text)
	case media != "application/json":
		t.Fatalf("answered with %s", media)
	}
	if err := schema.Check(api.OpenAPI, documented+"application~1json/schema", text); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	return true
}

// checkEvents checks each line, and that the last one is an end.
func checkEvents(t *testing.T, pointer string, text []byte) (done bool) {
	var last api.Event
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if err := schema.Check(api.OpenAPI, pointer, lines.Bytes()); err != nil {
			t.Errorf("%v\n%s", err, lines.Bytes())
		}
		last = api.Event{}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Progress != nil || last == (api.Event{}) {
		t.Errorf("the last event is %s", text)
	}
	return last.Error == nil
}

// ask sends one request as a client of this version.
func (s *served) ask(t *testing.T, method, path, body string) *http.Response {
	t.Helper()
	conn, err := net.DialTimeout("unix", s.dir.DaemonSocket(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	req, err := http.NewRequestWithContext(t.Context(), method, "http://bangerd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(api.VersionHeader, "1")
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// Anybody may ask for the document, of whatever version they are.
func TestOpenAPIIsServed(t *testing.T) {
	s := serve(t, os.Getuid())
	resp := s.raw(t, "GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(text, api.OpenAPI) {
		t.Errorf("%s, %d bytes, %v", resp.Status, len(text), err)
	}
}
