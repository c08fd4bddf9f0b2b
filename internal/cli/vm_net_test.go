package cli

import (
	"net/netip"
	"testing"
	"time"

	"banger"
	"banger/internal/egress"
)

func TestParseTarget(t *testing.T) {
	for _, test := range []struct {
		in, name string
		port     uint16
		bad      bool
	}{
		{"https://github.com/x?y#z", "github.com", 443, false}, {"http://github.com:8080", "github.com", 8080, false}, {"ssh://git@github.com/x", "github.com", 22, false},
		{"foo://github.com", "github.com", 0, false}, {"github.com", "github.com", 0, false}, {"github.com:22", "github.com", 22, false},
		{"10.0.0.1", "10.0.0.1", 0, false}, {"10.0.0.1:5432", "10.0.0.1", 5432, false}, {"[::1]:80", "::1", 80, false}, {"::1", "::1", 0, false},
		{"http://[::1]/", "::1", 80, false}, {"", "", 0, true}, {":80", "", 0, true}, {"a:b", "", 0, true}, {"a:70000", "", 0, true}, {"https://", "", 0, true}, {"a:1:2", "", 0, true},
	} {
		name, port, err := parseTarget(test.in)
		if name != test.name || port != test.port || (err != nil) != test.bad {
			t.Errorf("parseTarget(%q) = %q, %d, %v", test.in, name, port, err)
		}
	}
}

func TestCheckTarget(t *testing.T) {
	policy, err := banger.ParseNetPolicy("allow=1.2.3.4:80,vm:db,host:8080")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		port uint16
		want bool
	}{
		{"1.2.3.4", 80, true}, {"1.2.3.4", 81, false}, {"127.0.0.1", 80, false}, {"db.vm", 1, true}, {"x.vm", 1, false},
		{"host.banger", 8080, true}, {"host.banger", 1, false}, {"evil.example", 443, false},
	} {
		got := checkTarget(t.Context(), egress.Policy{NetPolicy: policy}, egress.NewHost(nil, nil), test.name, test.port)
		if got.Allowed != test.want || got.Allowed != (got.Reason == "") {
			t.Errorf("check of %s:%d = %+v, want %v", test.name, test.port, got, test.want)
		}
	}
}

func TestEventText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	for _, test := range []struct {
		event banger.NetEvent
		want  string
	}{
		{banger.NetEvent{Time: at, Verdict: banger.NetDenied, Proto: "dns", Name: "evil.example", Reason: "no rule allows it"}, "03:04:05 denied  dns  evil.example: no rule allows it"},
		{banger.NetEvent{Time: at, Verdict: banger.NetAllowed, Proto: "tcp", Name: "a.example", Addr: "1.2.3.4", Port: 443}, "03:04:05 allowed tcp  a.example:443 (1.2.3.4)"},
		{banger.NetEvent{Time: at, Verdict: banger.NetClosed, Proto: "tcp", Addr: netip.IPv6Loopback().String(), Port: 80, Sent: 2048, Received: 3 << 20, Elapsed: time.Second},
			"03:04:05 closed  tcp  [::1]:80, sent 2 KiB, received 3 MiB in 1.0s"},
		{banger.NetEvent{Time: at, Verdict: banger.NetDenied, Proto: "dns", Name: "a\x1b[2Jb\n", Lost: 7}, "(7 events were too many to be kept)\n03:04:05 denied  dns  a\\x1b[2Jb\\n"},
	} {
		if got := eventText(test.event); got != test.want {
			t.Errorf("eventText = %q, want %q", got, test.want)
		}
	}
}
