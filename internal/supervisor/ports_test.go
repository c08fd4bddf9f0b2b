package supervisor

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"banger"
	"banger/internal/listening"
	"banger/internal/machine"
	"banger/internal/testenv"
)

// echoOn is a listener in the guest, which shares this computer's network here.
func echoOn(t *testing.T, address string) (net.Listener, uint16) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l, l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func find(ports machine.Ports, port uint16) machine.Port {
	for _, p := range ports.Listeners {
		if p.Port == port {
			return p
		}
	}
	return machine.Port{}
}

func echoThrough(t *testing.T, at netip.AddrPort) {
	t.Helper()
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	go func() {
		conn.Write(data)
		conn.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
		t.Errorf("echo through %s gives %d bytes, %v, want the %d sent", at, len(got), err, len(data))
	}
}

func TestPorts(t *testing.T) {
	w := newWorld(t, agent)
	inGuest, port := echoOn(t, "127.0.0.1:0")
	free, pinned := echoOn(t, "127.0.0.1:0")
	free.Close()
	_, taken := echoOn(t, "0.0.0.0:0") // of another program here, before the guest's
	host := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) }
	w.cfg.Publish = []banger.Publish{{Host: host(pinned), Guest: port}, {Host: host(taken), Guest: port}, {Host: netip.MustParseAddrPort("192.0.2.1:80"), Guest: port}}
	w.start(t.Context())
	w.ready()

	closed, err := w.client.Ports(t.Context(), false)
	if err != nil || find(closed, port).Endpoint.IsValid() {
		t.Errorf("Ports without open = %+v, %v, want none reachable", find(closed, port), err)
	}
	ports, err := w.client.Ports(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if ports.Address != closed.Address || !netip.MustParsePrefix("127.88.0.0/16").Contains(ports.Address) {
		t.Errorf("the VM's address is %s, then %s", closed.Address, ports.Address)
	}
	got := find(ports, port)
	if got.Endpoint != netip.AddrPortFrom(ports.Address, port) || got.Error != nil || got.Process != "supervisor.test" {
		t.Fatalf("port %d: %+v", port, got)
	}
	echoThrough(t, got.Endpoint)
	echoThrough(t, host(pinned))
	if p := find(ports, taken); p.Endpoint.IsValid() || p.Error == nil || !errors.Is(p.Error.Decode(), banger.ErrConflict) {
		t.Errorf("a port that a wildcard of this computer has: %+v, want a conflict", p)
	}
	var kinds []string
	for _, pin := range ports.Published {
		kind := "open"
		if pin.Error != nil {
			kind = pin.Error.Kind
		}
		kinds = append(kinds, kind)
	}
	if want := "open conflict invalid"; strings.Join(kinds, " ") != want {
		t.Errorf("pinned ports are %q, want %s", kinds, want)
	}

	inGuest.Close()
	if conn, err := net.Dial("tcp", got.Endpoint.String()); err == nil {
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a port that nobody listens on any more: read gives %v, want a reset", err)
		}
		conn.Close()
	}
	if _, err := w.client.Shutdown(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", host(pinned).String()); err == nil {
		t.Error("a pinned port is open after the end of the run")
	}
}

// A port of the host goes when the guest's listener has gone, and no sooner.
func TestOpenAll(t *testing.T) {
	p := newPorts("/nonexistent", nil, nil, nil)
	defer p.close()
	p.begin("0123456789ab", nil)
	_, port := echoOn(t, "127.0.0.1:0")
	at := netip.AddrPortFrom(p.address, port).String()
	for _, tc := range []struct {
		name      string
		listeners []listening.Listener
		open      bool
	}{
		{"there", []listening.Listener{{Port: port}}, true},
		{"still there, on two addresses", []listening.Listener{{Port: port}, {Port: port}}, true},
		{"gone", nil, false},
		{"back", []listening.Listener{{Port: port}}, true},
	} {
		failed := p.openAll(tc.listeners)
		if l := p.open[port]; len(failed) > 0 || (l != nil) != tc.open {
			t.Errorf("%s: open %v, failed %v", tc.name, l != nil, failed)
		}
		l, err := net.Listen("tcp", at)
		if (err != nil) != tc.open {
			t.Errorf("%s: %s can be listened on: %v", tc.name, at, err == nil)
		}
		if err == nil {
			l.Close()
		}
	}
}

// Every port is open without being asked for, when that is configured.
func TestPublishAll(t *testing.T) {
	w := newWorld(t, agent)
	_, port := echoOn(t, "127.0.0.1:0")
	w.cfg.PublishAll = true
	w.start(t.Context())
	w.ready()
	status, err := w.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(status.Address, port)
	testenv.WaitFor(t, patience, "the port to open", func() bool {
		conn, err := net.Dial("tcp", at.String())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	echoThrough(t, at)
}

func TestLeaseAddress(t *testing.T) {
	first, _, err := leaseAddress("0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := leaseAddress("0123456789ab")
	if err != nil || second == first {
		t.Errorf("an address that is leased already: %v again, %v", second, err)
	}
}

// What a guest says of its listeners is bounded, and every address in it can be written and read again.
func FuzzParseListeners(f *testing.F) {
	f.Add([]byte(`[{"address":"127.0.0.1","port":80,"process":"nginx","pid":1,"uid":0}]`))
	f.Add([]byte(`[{"address":"fe80::1%eth0","port":80},{"address":"","port":0}]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, line []byte) {
		list, err := parseListeners(line)
		if err != nil {
			return
		}
		if len(list) > listening.MaxListeners {
			t.Errorf("%d listeners", len(list))
		}
		for _, l := range list {
			if back, err := netip.ParseAddrPort(netip.AddrPortFrom(l.Address, l.Port).String()); err != nil || back.Port() == 0 {
				t.Errorf("parseListeners(%q) lets through %+v", line, l)
			}
		}
	})
}
