// Command gvisor-tap-vsock serves a network card with the library of that name, with the settings of its own program, gvproxy. Descriptor 3
// is the card's stream of frames.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "gvisor-tap-vsock:", err)
		os.Exit(1)
	}
}

func serve() error {
	conn, err := net.FileConn(os.NewFile(3, "card"))
	if err != nil {
		return err
	}
	vn, err := virtualnetwork.New(&types.Configuration{MTU: 1500, Subnet: "192.168.127.0/24", GatewayIP: "192.168.127.1",
		GatewayMacAddress: "5a:94:ef:e4:0c:dd", Protocol: types.QemuProtocol})
	if err != nil {
		return err
	}
	return vn.AcceptQemu(context.Background(), conn)
}
