package testenv

import (
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
)

// Tests that run at the same time are given different ports, which the kernel gives to nobody who asks for any.
func TestFreePort(t *testing.T) {
	var first int
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(text), &first)
	}
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	given := map[int]bool{}
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			port := FreePort(t)
			mu.Lock()
			defer mu.Unlock()
			if given[port] || port >= first {
				t.Errorf("port %d: given before: %t; the kernel gives %d and up", port, given[port], first)
			}
			given[port] = true
		})
	}
	group.Wait()
	port := FreePort(t)
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatalf("what FreePort gives is not free: %v", err)
	}
	defer taken.Close()
	portsGiven.Add(^uint32(0)) // it would be next
	if again := FreePort(t); again == port {
		t.Errorf("FreePort gives %d, on which somebody listens", port)
	}
}
