package cli

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"banger"
	"banger/internal/machine"
)

func TestPrintPorts(t *testing.T) {
	at := netip.MustParseAddrPort
	taken := banger.EncodeError(&banger.Error{Kind: banger.ErrConflict, Op: "listen on", Subject: "127.88.1.2:22", Hint: "look"}, "")
	vm := vmPorts{Name: "devbox", HTTP: "127.0.0.1:42080", Ports: machine.Ports{
		Listeners: []machine.Port{
			{Port: 22, Address: netip.IPv4Unspecified(), Error: &taken},
			{Port: 3000, Address: netip.MustParseAddr("127.0.0.1"), Process: `evil\x1b`, PID: 7, Endpoint: at("127.88.1.2:3000")},
		},
		Published: []machine.Pin{{Publish: banger.Publish{Host: at("127.0.0.1:8080"), Guest: 3000}}, {Publish: banger.Publish{Host: at("127.0.0.1:9090"), Guest: 90}}},
	}}
	var out, errs bytes.Buffer
	a := &app{Streams: Streams{Out: &out, Err: &errs}}
	if err := a.printPorts([]vmPorts{vm}); err != nil {
		t.Fatal(err)
	}
	want := `VM      PORT  PROCESS       LISTENS ON      REACH IT AT
devbox  22    -             0.0.0.0:22      http://22.devbox.localhost:42080
devbox  3000  evil\x1b (7)  127.0.0.1:3000  127.0.0.1:8080  127.88.1.2:3000  http://3000.devbox.localhost:42080
devbox  90    -             nothing yet     127.0.0.1:9090
`
	if out.String() != want {
		t.Errorf("printPorts:\n%s\nwant:\n%s", out.String(), want)
	}
	if !strings.Contains(errs.String(), "127.88.1.2:22: conflict") || !strings.Contains(errs.String(), "hint: look") {
		t.Errorf("standard error: %q", errs.String())
	}
}
