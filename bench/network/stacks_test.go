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
	load(b)
	w := testenv.NewOnlineWorld(b)
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
	b.Logf("private memory before traffic: %s %.1f MB, %s %.1f MB", ours, memory(g.pids.Stack), tapSock, memory(g.pids.TapVsock))
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
	for _, what := range []string{fromGuest, toGuest} {
		all.compare(b, what+": at least 1.3 of QEMU's", what, ours, what, slirp)
		all.compare(b, what+": at least 2 of gvisor-tap-vsock's", what, ours, what, tapSock)
	}
	all.compare(b, request+": at most 1 of QEMU's", request, ours, request, slirp)
	b.Logf("the first look-up and connection, over the host's own: at most 20 ms: %.1f ms", (all.median(first, ours)-all.median(first, hostOnly))/1000)
	figures := guestRun("flows", testenv.OriginAddr)
	b.Logf("of %.0f connections at one time %.0f brought back every byte", figures["flows"], figures["whole"])
	if figures["whole"] != figures["flows"] {
		b.Errorf("%.0f connections were lost", figures["flows"]-figures["whole"])
	}
	time.Sleep(10 * time.Second) // idle again
	b.Logf("private memory ten seconds after it: %s %.1f MB, %s %.1f MB", ours, memory(g.pids.Stack), tapSock, memory(g.pids.TapVsock))
}

func decode(b *testing.B, line string) map[string]float64 {
	figures := map[string]float64{}
	if err := json.Unmarshal([]byte(line), &figures); err != nil {
		b.Fatalf("%v in %s", err, strconv.Quote(line))
	}
	return figures
}
