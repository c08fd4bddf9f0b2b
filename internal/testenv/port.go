package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

// Ports that tests are given lie below those that the kernel gives to who asks for any (ip_local_port_range): nobody gets one by chance
// before its test listens there.
const firstPort, lastPort = 20000, 32767

var (
	portsGiven  atomic.Uint32
	portsBefore = rand.Uint32N(lastPort - firstPort) // two test programs seldom begin at the same one
)

// FreePort gives a port on which nobody listens, and which no other test of this process is given.
func FreePort(t testing.TB) int {
	t.Helper()
	for range lastPort - firstPort {
		port := firstPort + int((portsBefore+portsGiven.Add(1))%(lastPort-firstPort+1))
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("all ports are taken")
	return 0
}
