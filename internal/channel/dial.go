package channel

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// maxDialError bounds why a guest could not connect.
const maxDialError = 256

// DialGuest connects to a TCP port inside the guest behind guestSock, on whatever address somebody listens there. The connection
// has CloseWrite. Errors: ErrUnavailable when nobody listens, or the machine is gone.
func DialGuest(ctx context.Context, guestSock string, port uint16) (net.Conn, error) {
	conn, err := Dial(ctx, guestSock, PortDial)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(longAgo) })
	err = AskDial(conn, port)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, unavailable(uint32(port), err)
	}
	return conn, nil
}

// AskDial is the host's side on a connection to PortDial: two bytes with the port, answered by one with the length of why not.
func AskDial(conn io.ReadWriter, port uint16) error {
	if _, err := conn.Write(binary.BigEndian.AppendUint16(nil, port)); err != nil {
		return err
	}
	var length [1]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil || length[0] == 0 {
		return err
	}
	reason := make([]byte, length[0])
	if _, err := io.ReadFull(conn, reason); err != nil {
		return err
	}
	return fmt.Errorf("%q", reason) // any bytes
}

// ServeDial is the guest's side: dial makes the connection, which is then joined with conn until both directions have ended.
func ServeDial(conn net.Conn, dial func(port uint16) (net.Conn, error)) {
	var port [2]byte
	if _, err := io.ReadFull(conn, port[:]); err != nil {
		return
	}
	to, err := dial(binary.BigEndian.Uint16(port[:]))
	if err != nil {
		reason := err.Error()
		reason = reason[:min(len(reason), maxDialError-1)]
		conn.Write(append([]byte{byte(len(reason))}, reason...))
		return
	}
	if _, err := conn.Write([]byte{0}); err != nil {
		to.Close()
		return
	}
	Join(conn, to, to)
}

// Join copies both ways between a and b until both directions have ended or one of them is gone; fromB reads b, what was read
// ahead of it first. It closes b.
func Join(a, b net.Conn, fromB io.Reader) { splice(a, b, fromB) }
