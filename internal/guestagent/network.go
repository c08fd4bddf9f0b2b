package guestagent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/channel"
)

// raiseLoopback makes 127.0.0.1 reachable; an image's own init finds it up.
func raiseLoopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// applyNetwork sets a card up as the host says. It may come again: what is set already stays.
func applyNetwork(n *channel.Network) error {
	if n.MAC == "" {
		return nil
	}
	card, err := findCard(n.MAC)
	if err != nil {
		return err
	}
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	if err := nl.raise(card); err != nil {
		return fmt.Errorf("raise the network card: %w", err)
	}
	var errs []error // a kernel without IPv6 has the rest
	for _, prefix := range n.Addresses {
		if err := nl.addAddress(card, prefix); err != nil {
			errs = append(errs, fmt.Errorf("give the network card the address %s: %w", prefix, err))
		}
	}
	for _, gateway := range n.Gateways {
		if err := nl.addGateway(card, gateway); err != nil {
			errs = append(errs, fmt.Errorf("route by %s: %w", gateway, err))
		}
	}
	return errors.Join(errs...)
}

// findCard gives the index of the interface with a hardware address.
func findCard(mac string) (int, error) {
	list, err := net.Interfaces()
	if err != nil {
		return 0, err
	}
	for _, i := range list {
		if i.HardwareAddr.String() == mac {
			return i.Index, nil
		}
	}
	return 0, fmt.Errorf("no network card has the address %s", mac)
}

// netlink is a socket to the kernel's network (rtnetlink(7)).
type netlink struct {
	fd  int
	seq uint32
}

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &netlink{fd: fd}, nil
}

func (n *netlink) close() { unix.Close(n.fd) }

// do sends one request and waits for its acknowledgement. What is there already is no error.
func (n *netlink) do(kind, flags uint16, body []byte) error {
	n.seq++
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	message = binary.NativeEndian.AppendUint32(message, n.seq)
	message = append(binary.NativeEndian.AppendUint32(message, 0), body...)
	if err := unix.Sendto(n.fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 8<<10)
	for {
		size, _, err := unix.Recvfrom(n.fd, answer, 0)
		if err != nil {
			return err
		}
		if size < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(answer[8:]) != n.seq {
			continue
		}
		errno := -int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:]))
		if errno == 0 || unix.Errno(errno) == unix.EEXIST {
			return nil
		}
		return unix.Errno(errno)
	}
}

func (n *netlink) raise(card int) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(card))
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP)
	return n.do(unix.RTM_NEWLINK, 0, body)
}

// addAddress adds an address that nobody else on the link has.
func (n *netlink) addAddress(card int, prefix netip.Prefix) error {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0], body[1] = familyOf(prefix.Addr()), byte(prefix.Bits())
	if prefix.Addr().Is6() {
		body[2] = unix.IFA_F_NODAD
	}
	binary.NativeEndian.PutUint32(body[4:], uint32(card))
	body = appendAttribute(body, unix.IFA_LOCAL, prefix.Addr().AsSlice())
	body = appendAttribute(body, unix.IFA_ADDRESS, prefix.Addr().AsSlice())
	return n.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body)
}

// addGateway adds a default route, after those that an image's own network programs make.
func (n *netlink) addGateway(card int, gateway netip.Addr) error {
	const metric = 2048
	body := make([]byte, unix.SizeofRtMsg)
	body[0], body[4], body[5], body[6], body[7] = familyOf(gateway), unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	body = appendAttribute(body, unix.RTA_GATEWAY, gateway.AsSlice())
	body = appendAttribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(card)))
	body = appendAttribute(body, unix.RTA_PRIORITY, binary.NativeEndian.AppendUint32(nil, metric))
	return n.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body)
}

func familyOf(addr netip.Addr) byte {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// appendAttribute appends a struct rtattr with its value, padded to 4 bytes.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// networkdFile tells systemd-networkd that the card is set up already: it would else take away what it has not set itself. So it counts as
// online, too. Whoever wants networkd to do it puts a file of the same name below /etc. Programs that ask by DHCP are told what is there.
const (
	networkdName = "00-banger.network"
	networkdFile = `[Match]
Type=ether
Driver=virtio_net
[Network]
KeepConfiguration=yes
DHCP=no
LinkLocalAddressing=no
IPv6AcceptRA=no
`
)

// keepNetwork writes that into a directory for networkd's files of this boot, before the image's init starts anything.
func keepNetwork(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, networkdName), []byte(networkdFile), 0o644)
}

const (
	resolvConf = "/etc/resolv.conf"
	// resolvMark is the first line of a file of ours: the next start may write it anew.
	resolvMark = "# by banger, until you remove this line\n"
)

// applyResolver tells the guest's programs whom to ask for names; systemd-resolved reads the file too. A file that its user wrote stays: it is in the upper layer of
// the root, upper, and has not our mark.
func applyResolver(path, upper string, servers []netip.Addr) error {
	if len(servers) == 0 {
		return nil
	}
	var own bytes.Buffer
	own.WriteString(resolvMark)
	for _, server := range servers {
		fmt.Fprintf(&own, "nameserver %s\n", server)
	}
	content, err := os.ReadFile(path)
	switch info, upperErr := os.Lstat(filepath.Join(upper, path)); {
	case err == nil && string(content) == own.String():
		return nil
	case err == nil && strings.HasPrefix(string(content), resolvMark):
	case upperErr == nil && info.Mode().IsRegular() && info.Size() > 0:
		return nil // the user's
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// By a rename: the image may have a link there, to a file that nobody makes, or that belongs to its own resolver.
	staging := path + ".banger"
	if err := os.WriteFile(staging, own.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(staging, path)
}

// upperRoot is where what the guest changed in its root lies.
func upperRoot() string { return filepath.Join(diskMount, banger.DiskUpperDir) }
