package netstack

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/testenv"
)

// TestNothingLeaks opens and ends connections in every way there is, again and again; nothing of them is left. In tier soak it goes
// on for ten minutes.
func TestNothingLeaks(t *testing.T) {
	rounds, end := 30, time.Time{}
	if testenv.Tier() == "soak" {
		rounds, end = 1<<30, time.Now().Add(10*time.Minute)
	}
	g := newGuest(t, "full")
	ways := []func(i int){
		func(int) { g.closing(portEcho, func(c io.ReadWriteCloser) { io.WriteString(c, "x"); c.Close() }) },
		func(int) {
			g.closing(portFlood, func(c io.ReadWriteCloser) { io.ReadFull(c, make([]byte, 100_000)); c.Close() })
		},
		func(int) { g.closing(portSink, func(c io.ReadWriteCloser) { io.WriteString(c, "half"); c.Close() }) },
		func(int) { g.refused(originAddr, portClosed) },
		func(int) { g.refused(privateAddr, portEcho) },
		func(i int) {
			conn := g.udp(originAddr, portEcho)
			echoes(t, conn, fmt.Sprint(i))
			conn.Close()
		},
	}
	baseline := 0
	for i := 0; i < rounds && (end.IsZero() || time.Now().Before(end)); i++ {
		for _, way := range ways {
			way(i)
		}
		if i == 2 {
			baseline = runtime.NumGoroutine()
		}
		g.net.flows.judge(func(t target) bool { return t.proto != "udp" }) // those wait for silence
		if i%10 == 9 {
			g.noFlows()
		}
	}
	g.noFlows()
	g.eventually("the goroutines of connections end", func() bool { return runtime.NumGoroutine() <= baseline+20 })
}

// closing connects and lets do end the connection.
func (g *guest) closing(port uint16, do func(io.ReadWriteCloser)) {
	g.t.Helper()
	conn, err := g.dial(originAddr, port)
	if err != nil {
		g.t.Fatal(err)
	}
	do(conn)
}

// TestRandomEnds has many connections at once, to servers of every kind, that end in any way at any time, while the policy changes. Nothing
// of them is left. In tier soak it goes on for ten minutes.
func TestRandomEnds(t *testing.T) {
	const atOnce = 40
	flows, end := 2000, time.Time{}
	if testenv.Tier() == "soak" {
		flows, end = 1<<40, time.Now().Add(10*time.Minute)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := newGuest(t, "full")
	echoes(t, g.mustDial(originAddr, portEcho), "warm")
	g.net.flows.judge(func(target) bool { return false })
	g.noFlows()
	baseline := runtime.NumGoroutine()
	var next atomic.Int64
	var all sync.WaitGroup
	for worker := range atOnce {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(worker)))
			for next.Add(1) <= int64(flows) && (end.IsZero() || time.Now().Before(end)) {
				g.endsSomehow(r)
			}
		})
	}
	all.Wait()
	// UDP waits for silence, and whether the guest has left a server that never ends is found out after minutes.
	g.net.flows.judge(func(t target) bool { return t.proto != "udp" && t.port != portStuck })
	g.noFlows()
	g.eventually("the goroutines of connections end", func() bool { return runtime.NumGoroutine() <= baseline+20 })
}

// endsSomehow makes a connection, or tries to, and ends it in some way. How far it gets does not matter: others change the policy.
func (g *guest) endsSomehow(r *rand.Rand) {
	ports := []uint16{portEcho, portSink, portStuck, portFlood, portHTTP, portTLS, portClosed}
	port := ports[r.IntN(len(ports))]
	if r.IntN(10) == 0 {
		conn := g.udp(originAddr, portEcho)
		defer conn.Close()
		io.WriteString(conn, "datagram")
		return
	}
	addr := []string{originAddr, originAddr, originAddr6, otherAddr, privateAddr}[r.IntN(5)]
	conn, err := g.dial(addr, port)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Duration(1+r.IntN(50)) * time.Millisecond))
	for range r.IntN(5) {
		switch r.IntN(6) {
		case 0:
			conn.Write(make([]byte, r.IntN(200_000)))
		case 1:
			io.ReadFull(conn, make([]byte, r.IntN(200_000)))
		case 2:
			conn.CloseWrite()
		case 3:
			conn.CloseRead()
		case 4:
			g.net.flows.judge(func(target) bool { return r.IntN(8) != 0 })
		case 5:
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	}
}
