package netstack

import (
	"fmt"
	"io"
	"runtime"
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
