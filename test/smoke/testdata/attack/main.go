// Command attack is what a hostile or broken program in a guest does to the guest's network, and one that works beside it:
//
//	attack halfopen ADDRESS PORT COUNT   asks for connections that it never completes; nothing else of the guest reaches ADDRESS any more
//	attack frames ADDRESS COUNT SEED     sends packets that are cut, lie about their sizes, are in pieces that do not fit, or are no packets at all
//	attack unread ADDRESS PORT COUNT     opens connections from which it reads nothing, and writes to them until no more is taken
//	attack work ADDRESS PORT             sends pieces to an echo server and wants them back, and says a line for each until its input ends
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const card = "eth0"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("want what, an address and a number")
	}
	to, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	var n [2]uint64
	for i, text := range args[2:min(len(args), 4)] {
		if n[i], err = strconv.ParseUint(text, 10, 64); err != nil {
			return err
		}
	}
	switch args[0] {
	case "halfopen":
		return halfOpen(to, uint16(n[0]), int(n[1]))
	case "frames":
		return frames(to, int(n[0]), n[1])
	case "unread":
		return unread(netip.AddrPortFrom(to, uint16(n[0])), int(n[1]))
	case "work":
		return work(netip.AddrPortFrom(to, uint16(n[0])))
	}
	return fmt.Errorf("%q is none of them", args[0])
}

// wire is the guest's card, below its kernel's own network.
type wire struct {
	fd       int
	at       unix.SockaddrLinklayer
	own, far net.HardwareAddr // of the card, and of the gateway
	address  netip.Addr
}

func openWire() (*wire, error) {
	link, err := net.InterfaceByName(card)
	if err != nil {
		return nil, err
	}
	addresses, err := link.Addrs()
	if err != nil || len(addresses) == 0 {
		return nil, fmt.Errorf("%s has no address: %v", card, err)
	}
	prefix, err := netip.ParsePrefix(addresses[0].String())
	if err != nil {
		return nil, err
	}
	neighbours, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		return nil, err
	}
	w := &wire{own: link.HardwareAddr, address: prefix.Addr(), at: unix.SockaddrLinklayer{Ifindex: link.Index}}
	for line := range strings.Lines(string(neighbours)) {
		if fields := strings.Fields(line); len(fields) == 6 && fields[5] == card {
			if w.far, err = net.ParseMAC(fields[3]); err != nil {
				return nil, err
			}
		}
	}
	if w.far == nil {
		return nil, errors.New("the guest has not spoken with its gateway yet")
	}
	w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	return w, err
}

// send waits when the card has no room.
func (w *wire) send(frame []byte) error {
	for {
		err := unix.Sendto(w.fd, frame, 0, &w.at)
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// packet is a whole frame with an IPv4 packet.
func (w *wire) packet(to netip.Addr, protocol byte, payload []byte) []byte {
	f := append(append(append([]byte{}, w.far...), w.own...), 0x08, 0x00)
	ip := []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0}
	ip = append(append(ip, w.address.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(payload)))
	binary.BigEndian.PutUint16(ip[10:], sum(ip))
	return append(append(f, ip...), payload...)
}

func sum(parts ...[]byte) uint16 {
	var s uint32
	for i, b := range bytes.Join(parts, nil) {
		s += uint32(b) << (8 * (1 - i%2))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func (w *wire) syn(to netip.Addr, from, port uint16) []byte {
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment, from)
	binary.BigEndian.PutUint16(segment[2:], port)
	segment[12], segment[13], segment[14] = 5<<4, 2, 0xff
	pseudo := append(append([]byte{}, w.address.AsSlice()...), to.AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	binary.BigEndian.PutUint16(segment[16:], sum(pseudo, segment))
	return w.packet(to, unix.IPPROTO_TCP, segment)
}

func halfOpen(to netip.Addr, port uint16, count int) error {
	w, err := openWire()
	if err != nil {
		return err
	}
	if err := blackhole(to); err != nil { // else the kernel refuses what it knows nothing of
		return fmt.Errorf("route: %w", err)
	}
	for i := range count {
		if err := w.send(w.syn(to, uint16(1024+i), port)); err != nil {
			return err
		}
	}
	fmt.Println("sent", count)
	return nil
}

// blackhole has the kernel lose what it would send to an address.
func blackhole(to netip.Addr) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	route := []byte{unix.AF_INET, 32, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_BLACKHOLE, 0, 0, 0, 0, 8, 0, unix.RTA_DST, 0}
	route = append(route, to.AsSlice()...)
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(route)))
	m = binary.NativeEndian.AppendUint16(m, unix.RTM_NEWROUTE)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	m = append(m, make([]byte, 8)...)
	if err := unix.Sendto(fd, append(m, route...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.NLMSG_HDRLEN+4 {
		return io.ErrUnexpectedEOF
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 && unix.Errno(-code) != unix.EEXIST {
		return unix.Errno(-code)
	}
	return nil
}

func frames(to netip.Addr, count int, seed uint64) error {
	w, err := openWire()
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for range count {
		for _, frame := range w.odd(r, to) {
			if err := w.send(frame); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EMSGSIZE) { // shorter than a header, longer than the card takes
				return err
			}
		}
	}
	fmt.Println("sent", count)
	return nil
}

// odd is a packet, or its pieces, with something wrong.
func (w *wire) odd(r *rand.Rand, to netip.Addr) [][]byte {
	body := make([]byte, r.IntN(1400))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	protocols := []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_IGMP, 47, 132, 255}
	frame := w.packet(to, protocols[r.IntN(len(protocols))], body)
	if r.IntN(3) == 0 {
		frame = w.syn(to, uint16(r.Uint32()), 7)
	}
	ip := frame[14:]
	switch r.IntN(8) {
	case 0: // pieces that overlap, are far away, or come alone
		var pieces [][]byte
		for range 1 + r.IntN(4) {
			piece := bytes.Clone(frame)
			binary.BigEndian.PutUint16(piece[14+6:], uint16(r.IntN(1<<14))&^uint16(r.IntN(2)<<13)|uint16(r.IntN(64)))
			binary.BigEndian.PutUint16(piece[14+4:], uint16(r.IntN(8)))
			clear(piece[14+10 : 14+12])
			binary.BigEndian.PutUint16(piece[14+10:], sum(piece[14:34]))
			pieces = append(pieces, piece)
		}
		return pieces
	case 1: // lies about the length
		binary.BigEndian.PutUint16(ip[2:], uint16(r.Uint32()))
	case 2: // options that are not there
		ip[0] = byte(r.Uint32())
	case 3: // cut
		frame = frame[:r.IntN(len(frame))]
	case 4: // IPv6, with headers that lead nowhere
		binary.BigEndian.PutUint16(frame[12:], 0x86dd)
		ip[0] = 0x60
	case 5: // another kind: ARP, VLAN, what there is not
		binary.BigEndian.PutUint16(frame[12:], []uint16{0x0806, 0x8100, 0x88cc, 0x0000, 0xffff}[r.IntN(5)])
	case 6: // a TCP header without an end
		if len(ip) > 33 {
			ip[32], ip[33] = byte(r.Uint32()), byte(r.Uint32())
		}
	}
	for range r.IntN(4) { // whatever it is, some of it is something else
		if len(frame) > 14 {
			frame[14+r.IntN(len(frame)-14)] ^= byte(1 + r.IntN(255))
		}
	}
	return [][]byte{frame}
}

func unread(to netip.AddrPort, count int) error {
	conns := make([]net.Conn, count)
	for i := range conns {
		conn, err := net.DialTimeout("tcp", to.String(), time.Minute)
		if err != nil {
			return err
		}
		conns[i] = conn
		go conn.Write(make([]byte, 64<<20))
	}
	fmt.Println("open", count)
	io.Copy(io.Discard, os.Stdin)
	for _, conn := range conns {
		conn.Close()
	}
	return nil
}

func work(to netip.AddrPort) error {
	conn, err := net.DialTimeout("tcp", to.String(), time.Minute)
	if err != nil {
		return err
	}
	defer conn.Close()
	done := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	piece, got := make([]byte, 32<<10), make([]byte, 32<<10)
	for n := uint64(0); ; n++ {
		select {
		case <-done:
			return nil
		default:
		}
		for i := range piece {
			piece[i] = byte(uint64(i) * (n + 1))
		}
		if _, err := conn.Write(piece); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if !bytes.Equal(got, piece) {
			return fmt.Errorf("piece %d came back as another", n)
		}
		fmt.Println(n)
	}
}
