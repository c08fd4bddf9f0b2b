package supervisor

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/machine"
	"banger/internal/netstack"
	"banger/internal/testenv"
)

// arpRequest asks for the gateway: the first frame of a guest that uses its network.
func arpRequest() []byte {
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3, 8, 6}, 0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 1, 2, 3)
	frame = append(append(append(frame, netstack.Guest4.Addr().AsSlice()...), 0, 0, 0, 0, 0, 0), netstack.Gateway4.AsSlice()...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

// dnsQuery is a frame of a guest that asks its resolver for x.example.
func dnsQuery() []byte {
	return datagram(53, "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x07example\x00\x00\x01\x00\x01")
}

// datagram is a frame of a guest that sends text to a port of the gateway.
func datagram(port uint16, text string) []byte {
	udp := append(binary.BigEndian.AppendUint16([]byte{0x10, 0}, port), 0, byte(8+len(text)), 0, 0)
	udp = append(udp, text...)
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, 17, 0, 0}
	ip = append(append(ip, netstack.Guest4.Addr().AsSlice()...), netstack.Gateway4.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum))
	frame := append([]byte{0x02, 'b', 'n', 'g', 'r', 1, 0x52, 0x54, 0, 1, 2, 3, 8, 0}, append(ip, udp...)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

// exchange sends a frame by the guest's card and waits for one back.
func exchange(t *testing.T, card net.Conn, frame []byte) {
	t.Helper()
	card.SetDeadline(time.Now().Add(patience))
	if _, err := card.Write(frame); err != nil {
		t.Fatal(err)
	}
	var size [4]byte
	if _, err := io.ReadFull(card, size[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, card, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
		t.Fatal(err)
	}
}

func TestNetwork(t *testing.T) {
	w := newWorld(t, agent)
	w.cfg.Net = banger.NetNone
	done := w.start(t.Context())
	w.ready()
	id := <-w.identified
	if n := id.Network; n.MAC != "52:54:00:67:89:ab" || len(n.Addresses) != 2 || n.Gateways[0] != netstack.Gateway4 || n.DNS[0] != netstack.Gateway4 {
		t.Errorf("network of the identity: %+v", n)
	}
	if status := w.status(); status.Net.String() != "none" {
		t.Errorf("policy %q", status.Net)
	}
	card := w.guest(0).Network()
	exchange(t, card, arpRequest())
	seen := make(chan banger.NetEvent, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- w.client.NetLog(context.Background(), true, func(e banger.NetEvent) error { seen <- e; return nil })
	}()
	go card.Write(dnsQuery())
	if e := <-seen; e.Verdict != banger.NetDenied || e.Proto != "dns" || e.Name != "x.example" {
		t.Errorf("event %+v", e)
	}
	policy, err := banger.ParseNetPolicy("allow=x.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.client.SetNet(t.Context(), policy); err != nil || w.status().Net.String() != "allow=x.example" {
		t.Errorf("SetNet: %v, then %q", err, w.status().Net)
	}
	w.client.Shutdown(t.Context(), 0)
	w.finish(done)
	if err := <-ended; err != nil {
		t.Errorf("the followed log ends with %v", err)
	}
	stop := errors.New("enough")
	if err := w.client.NetLog(t.Context(), false, func(banger.NetEvent) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the log of a run that has ended: %v, want one event at least", err)
	}
}

// What a guest sends and receives is counted ; the supervisor's statistics tell.
func TestNetworkTraffic(t *testing.T) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(append([]byte("got "), b[:n]...), from)
		}
	}()
	port := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	w := newWorld(t, agent)
	if w.cfg.Net, err = banger.ParseNetPolicy(fmt.Sprintf("allow=host:%d", port)); err != nil {
		t.Fatal(err)
	}
	done := w.start(t.Context())
	w.ready()
	<-w.identified
	card := w.guest(0).Network()
	exchange(t, card, arpRequest())
	go drainCard(card)
	w.awaitTraffic(banger.NetTraffic{})
	card.Write(dnsQuery())
	card.Write(datagram(port, "hello"))
	w.awaitTraffic(banger.NetTraffic{SentBytes: 5, ReceivedBytes: 9})
	w.client.Shutdown(t.Context(), 0)
	w.finish(done)
}

// awaitTraffic asks until so much has been carried.
func (w *world) awaitTraffic(want banger.NetTraffic) {
	w.t.Helper()
	testenv.WaitFor(w.t, patience, fmt.Sprintf("traffic of %+v", want), func() bool {
		stats, err := w.client.Stats(w.t.Context())
		return err == nil && stats.Net == want
	})
}

// A supervisor that takes over serves the same card anew.
func TestNetworkAfterTakeOver(t *testing.T) {
	w := newWorld(t, agent)
	w.orphan(true)
	done := w.start(t.Context())
	w.ready()
	<-w.identified
	exchange(t, w.guest(0).Network(), arpRequest())
	w.client.Shutdown(t.Context(), 0)
	w.finish(done)
}

// Other VMs find this one by the names that it is given, whatever its supervisor knows of them.
func TestPeers(t *testing.T) {
	w := newWorld(t, agent)
	w.cfg.Peers = t.TempDir()
	killed, err := machine.Listen(machine.PeerSocket(w.cfg.Peers, w.cfg.ID)) // it stays, as that of a supervisor that was killed
	if err != nil {
		t.Fatal(err)
	}
	killed.Close()
	done := w.start(t.Context())
	w.ready()
	dial := func(name string) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, err := machine.DialPeer(ctx, w.cfg.Peers, name, 80)
		if err == nil {
			conn.Close()
		}
		return err
	}
	answered := func(err error) bool { return err != nil && strings.Contains(err.Error(), "connect to the guest") }
	<-w.identified
	go drainCard(w.guest(0).Network())
	const other = banger.VMID("fedcba987654")
	for _, step := range []struct {
		id   banger.VMID
		name string
	}{{w.cfg.ID, "devbox"}, {w.cfg.ID, "webbox"}, {other, "devbox"}} {
		if err := machine.NamePeer(w.cfg.Peers, step.name, step.id); err != nil {
			t.Fatal(err)
		}
		if err := dial(step.name); answered(err) != (step.id == w.cfg.ID) || !errors.Is(err, banger.ErrUnavailable) {
			t.Errorf("%s is %s: DialPeer = %v", step.name, step.id, err)
		}
	}
	if err := machine.ForgetPeer(w.cfg.Peers, "devbox", w.cfg.ID); err != nil { // it is the other's
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", machine.PeerSocket(w.cfg.Peers, w.cfg.ID))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, `{"exec":{"argv":["true"]}}`+"\n")
	if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(answer, "want a port") {
		t.Errorf("a command by the socket for other VMs: %q, %v", answer, err)
	}
	w.client.Shutdown(t.Context(), 0)
	w.finish(done)
	left, err := os.ReadDir(w.cfg.Peers)
	if err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v, want the two names", left, err)
	}
	for name, id := range map[string]banger.VMID{"webbox": w.cfg.ID, "devbox": other} {
		if err := machine.ForgetPeer(w.cfg.Peers, name, id); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(w.cfg.Peers); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// drainCard is a guest whose card takes frames and answers none.
func drainCard(card net.Conn) { io.Copy(io.Discard, card) }

// TestEventsAreBounded holds that a guest cannot make the log cost what it likes, and that what is left out is counted.
func TestEventsAreBounded(t *testing.T) {
	w := newWorld(t)
	n, err := openNetwork(w.dir.NetworkLog(), w.cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	const events = 10 * eventsBurst
	for range events {
		n.record(banger.NetEvent{Verdict: banger.NetDenied})
	}
	n.mu.Lock()
	n.left = 1
	n.mu.Unlock()
	n.record(banger.NetEvent{Verdict: banger.NetDenied, Name: "last"})
	kept, lost := 0, 0
	err = w.client.NetLog(t.Context(), false, func(e banger.NetEvent) error {
		kept, lost = kept+1, lost+e.Lost
		return nil
	})
	if err != nil || kept+lost != events+1 || kept > 2*eventsBurst {
		t.Errorf("%d events are kept and %d left out of %d: %v", kept, lost, events+1, err)
	}
}
