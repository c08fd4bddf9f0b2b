package vmmtest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"banger/internal/channel"
)

// Ports of the test guest.
const (
	portEcho    = 7 // returns what it gets
	portControl = 9 // one line: a command below, answered by "ok" or by what it brings
)

// Commands of the control port.
const (
	cmdPowerOff = "power-off"
	cmdReboot   = "reboot"
	cmdPanic    = "panic"
	cmdPrint    = "print " // + text for the console
	cmdDial     = "dial "  // + port of the host: answers the first line that it says
	cmdCard     = "card"   // from now on frames of the type etherTest come back, their ends exchanged
)

// etherTest is a type of frames for experiments (IEEE 802, local experimental).
const etherTest = 0x88b5

// Guest is the guest of the contract suite: it does what it is told on its control port. A real one is the first process
// of an initrd; the in-memory driver runs one as goroutines.
type Guest struct {
	Print                   func(text string)
	PowerOff, Reboot, Panic func()
	// Card is the network card: each read and each write is one frame.
	Card func() (io.ReadWriteCloser, error)
}

// Serve greets the host on the guest's end of the channel and serves until the host goes away.
func (g Guest) Serve(conn io.ReadWriteCloser) error {
	session, err := channel.Guest(conn)
	if err != nil {
		return err
	}
	return session.Serve(func(port uint32) channel.Handler {
		switch port {
		case portEcho:
			return func(conn net.Conn) { io.Copy(conn, conn) }
		case portControl:
			return func(conn net.Conn) { g.control(session, conn) }
		}
		return nil
	})
}

func (g Guest) control(session *channel.Session, conn net.Conn) {
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	command := strings.TrimSuffix(line, "\n")
	after := func() {}
	answer := "ok"
	switch {
	case command == cmdPowerOff:
		after = g.PowerOff
	case command == cmdReboot:
		after = g.Reboot
	case command == cmdPanic:
		after = g.Panic
	case command == cmdCard:
		err = g.echoFrames()
	case strings.HasPrefix(command, cmdPrint):
		g.Print(strings.TrimPrefix(command, cmdPrint))
	case strings.HasPrefix(command, cmdDial):
		answer, err = dialHost(session, strings.TrimPrefix(command, cmdDial))
	default:
		err = errors.New("unknown command")
	}
	if err != nil {
		answer = "error: " + err.Error()
	}
	fmt.Fprintln(conn, answer)
	after()
}

// echoFrames begins to echo. It goes on until the card is gone.
func (g Guest) echoFrames() error {
	card, err := g.Card()
	if err != nil {
		return err
	}
	go func() {
		defer card.Close()
		for frame := make([]byte, 64<<10); ; {
			n, err := card.Read(frame)
			if err != nil {
				return
			}
			if n < 14 || binary.BigEndian.Uint16(frame[12:]) != etherTest {
				continue
			}
			echo := slices.Concat(frame[6:12], frame[:6], frame[12:n])
			if _, err := card.Write(echo); err != nil {
				return
			}
		}
	}()
	return nil
}

func dialHost(session *channel.Session, number string) (string, error) {
	port, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return "", err
	}
	conn, err := session.Open(context.Background(), uint32(port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}
