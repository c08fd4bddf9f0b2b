package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"banger/internal/testenv"
)

const (
	originAddr  = testenv.OriginAddr
	otherAddr   = testenv.OtherAddr
	privateAddr = testenv.PrivateAddr
	lanAddr     = testenv.LANAddr
	metaAddr    = testenv.MetaAddr
	originAddr6 = testenv.OriginAddr6

	portEcho   = testenv.PortEcho
	portSink   = testenv.PortSink
	portStuck  = testenv.PortStuck
	portFlood  = testenv.PortFlood
	portHTTP   = testenv.PortHTTP
	portTLS    = testenv.PortTLS
	portClosed = testenv.PortClosed
)

func worldServers() ([]netip.AddrPort, error) {
	return []netip.AddrPort{netip.MustParseAddrPort(testenv.DNSAddr + ":53")}, nil
}

var errPeer = errors.New("no such vm")

// testPeer is the VM "db", which answers on every port.
func testPeer(_ context.Context, vm string, port uint16) (net.Conn, error) {
	if vm != "db" {
		return nil, errPeer
	}
	a, b := net.Pipe()
	go func() {
		defer b.Close()
		fmt.Fprintf(b, "db:%d", port)
	}()
	return a, nil
}
