package network

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"banger/internal/testenv"
)

// Ways of the network.
const (
	ours     = "banger"
	slirp    = "QEMU's user network"
	tapSock  = "gvisor-tap-vsock"
	hostOnly = "the host itself"
)

// What is measured.
const (
	fromGuest = "TCP from the guest, MB/s"
	toGuest   = "TCP to the guest, MB/s"
	request   = "a request and its answer, us"
	connect   = "a look-up and a connection, us"
	first     = "the first one, us"
)

// BenchmarkStacks compares three user-mode networks as cards of one guest.
func BenchmarkStacks(b *testing.B) {
	w := testenv.NewOnlineWorld(b)
	w.LogHost()
	g := startBare(b, w)
	program := inside(b, w)
	guestRun := func(args ...string) map[string]float64 {
		return decode(b, g.exec(append([]string{"inside"}, args...)...))
	}
	hostRun := func(args ...string) map[string]float64 {
		out, err := exec.Command(program, args...).Output()
		if err != nil {
			b.Fatalf("inside %q on the host: %v", args, err)
		}
		return decode(b, string(out))
	}
	memory := func(pid int) float64 {
		return float64(testenv.StatusField(b, fmt.Sprintf("/proc/%d/status", pid), "RssAnon")) / 1024
	}
	b.ReportMetric(memory(g.pids.Stack), "fresh-banger-MB")
	b.ReportMetric(memory(g.pids.TapVsock), "fresh-tap-MB")
	all := results{}
	ways := []struct{ name, server string }{{ours, testenv.OriginAddr}, {slirp, slirpCard.server}, {tapSock, tapVsockCard.server}, {hostOnly, testenv.OriginAddr}}
	for i := range runs() {
		for j := range ways {
			way := ways[(i+j)%len(ways)]
			run := guestRun
			if way.name == hostOnly {
				run = hostRun
			}
			figures := run("tcp", way.server)
			all.add(fromGuest, way.name, figures["out"])
			all.add(toGuest, way.name, figures["in"])
			all.add(request, way.name, figures["request"])
		}
		for name, run := range map[string]func(...string) map[string]float64{ours: guestRun, hostOnly: hostRun} {
			figures := run("connect", "www.example.test")
			all.add(connect, name, figures["connect"])
			all.add(first, name, figures["first"])
		}
	}
	for _, what := range []string{fromGuest, toGuest, request} {
		all.report(b, what, ours, slirp, tapSock, hostOnly)
	}
	for _, what := range []string{connect, first} {
		all.report(b, what, ours, hostOnly)
	}
	names := map[string]string{ours: "banger", slirp: "slirp", tapSock: "tap", hostOnly: "host"}
	for way, name := range names {
		b.ReportMetric(all.median(fromGuest, way), "from-"+name+"-MB/s")
		b.ReportMetric(all.median(toGuest, way), "to-"+name+"-MB/s")
		b.ReportMetric(all.median(request, way)/1000, "request-"+name+"-ms")
	}
	for direction, what := range map[string]string{"from": fromGuest, "to": toGuest} {
		all.metric(b, direction+"-banger/slirp", what, ours, what, slirp)
		all.metric(b, direction+"-banger/tap", what, ours, what, tapSock)
	}
	all.metric(b, "request-banger/slirp", request, ours, request, slirp)
	b.ReportMetric((all.median(first, ours)-all.median(first, hostOnly))/1000, "connect-over-host-ms")
	figures := guestRun("flows", testenv.OriginAddr)
	b.ReportMetric(figures["whole"], "whole-of-1000")
	if figures["whole"] != figures["flows"] {
		b.Errorf("%.0f connections were lost", figures["flows"]-figures["whole"])
	}
	time.Sleep(10 * time.Second) // idle again
	b.ReportMetric(memory(g.pids.Stack), "used-banger-MB")
	b.ReportMetric(memory(g.pids.TapVsock), "used-tap-MB")
}

func decode(b *testing.B, line string) map[string]float64 {
	figures := map[string]float64{}
	if err := json.Unmarshal([]byte(line), &figures); err != nil {
		b.Fatalf("%v in %s", err, strconv.Quote(line))
	}
	return figures
}
