package netstack

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger"
	"banger/internal/testenv"
)

func TestFull(t *testing.T) {
	g := newGuest(t, "full")
	for _, host := range []string{originAddr, originAddr6, "www.example.test"} {
		echoes(t, g.mustDial(host, portEcho), "hello")
	}
	if e := g.await(banger.NetAllowed, "www.example.test:7"); e.Addr != originAddr || e.Proto != "tcp" {
		t.Errorf("event %+v", e)
	}
	// A server on the host's own addresses is not reached. (Loopback addresses no guest's stack sends out: see TestRaw.)
	for _, addr := range []string{"203.0.113.1", "192.0.2.1", "2001:db8:1::1"} {
		l, err := testenv.ServeLine(net.JoinHostPort(addr, "8080"), "host")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		g.refused(addr, 8080)
		if e := g.await(banger.NetDenied, net.JoinHostPort(addr, "8080")); e.Reason == "" {
			t.Errorf("event %+v", e)
		}
	}
	for _, addr := range []string{privateAddr, lanAddr, metaAddr, "10.0.0.1", "100.64.0.1", "2001:db8:1::fe", "64:ff9b::7f00:1", "2002:7f00:1::1", "64:ff9b::cb00:7101"} {
		g.refused(addr, portEcho)
	}
	g.refused(Gateway4.String(), 8080)
	g.refused("host.banger", 8080)
	g.refused("private.example.test", portEcho)
	if e := g.await(banger.NetDenied, "private.example.test:7"); !strings.Contains(e.Reason, "private") {
		t.Errorf("event %+v", e)
	}
	g.refused(originAddr, portClosed)
	if e := g.await(banger.NetFailed, "www.example.test:81"); e.Reason != "connection refused" {
		t.Errorf("event %+v", e)
	}
}

func TestNone(t *testing.T) {
	g := newGuest(t, "none")
	g.refused(originAddr, portEcho)
	g.refused("www.example.test", portEcho)
	if answer := g.lookup("www.example.test", dns.TypeA); answer.Rcode != dns.RcodeRefused {
		t.Errorf("look-up: %v", answer)
	}
	if e := g.await(banger.NetDenied, "www.example.test"); e.Proto != "dns" {
		t.Errorf("event %+v", e)
	}
	g.refusedUDP(originAddr, portEcho, "x")
}

func TestHalfClose(t *testing.T) {
	g := newGuest(t, "full")
	conn := g.mustDial(originAddr, portSink)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != fmt.Sprint(len(sent)) {
		t.Errorf("after the half-close: %q, %v, want %d", got, err, len(sent))
	}
	conn.Close()
	if e := g.await(banger.NetClosed, originAddr+":9"); e.Sent != int64(len(sent)) || e.Received != int64(len(got)) {
		t.Errorf("event %+v, want %d and %d bytes", e, len(sent), len(got))
	}
	g.noFlows()
}

// noFlows waits until no connection is left.
func (g *guest) noFlows() {
	g.t.Helper()
	g.eventually("no flow is left", func() bool { return g.net.Flows() == 0 })
}

// web gets a page and says which host name and address served it.
func (g *guest) web(scheme, name, sni string) (string, error) {
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			port := uint16(portHTTP)
			if strings.HasSuffix(addr, ":443") {
				port = portTLS
			}
			return g.dial(name, port)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: sni},
	}
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get(scheme + "://" + name + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestAllowList(t *testing.T) {
	g := newGuest(t, "allow=www.example.test,dual.example.test:443,*.sub.example.test,six.example.test,private.example.test,10.9.9.9:80,rebind.example.test,loop.example.test,cdn.example.test")
	for _, test := range []struct{ scheme, name, sni, want string }{
		{"http", "www.example.test", "", "www.example.test at " + originAddr},
		{"https", "www.example.test", "", "www.example.test at " + originAddr},
		{"https", "WWW.example.test", "www.example.test", "WWW.example.test at " + originAddr},
		{"https", "dual.example.test", "", "dual.example.test at " + originAddr},
		{"http", "private.example.test", "", "private.example.test at " + privateAddr}, // by the rule for its address
		{"http", "six.example.test", "", ""},                                           // no A: a guest that asks for one gets ours
		{"http", "dual.example.test", "", "refused"},
		{"http", "other.example.test", "", "REFUSED"},
		{"http", "sub.example.test", "", "REFUSED"},
		{"http", "a.sub.example.test", "", "NXDOMAIN"},
		{"http", "loop.example.test", "", "refused"},
		{"https", "www.example.test", "other.example.test", "reset"},
		{"https", "cdn.example.test", "www.example.test", "reset"},
	} {
		got, err := g.web(test.scheme, test.name, test.sni)
		switch {
		case err != nil && !strings.Contains(err.Error(), test.want), err != nil && test.want == "", err == nil && test.want != got && test.want != "":
			t.Errorf("%s://%s (SNI %s) = %q, %v, want %q", test.scheme, test.name, test.sni, got, err, test.want)
		}
	}
	if e := g.await(banger.NetDenied, "cdn.example.test:443"); !strings.Contains(e.Reason, "www.example.test") {
		t.Errorf("event %+v", e)
	}
	g.refused(originAddr, portHTTP) // the raw address of an allowed name
	g.refused(testenv.DNSAddr, 53)  // another resolver
	g.refused(privateAddr, portEcho)
	g.refused("198.18.200.200", portHTTP)
	g.checkRebind()
	g.checkUDP()
}

// checkRebind looks at a name that is the host's loopback address when it is looked up again.
func (g *guest) checkRebind() {
	g.t.Helper()
	echoes(g.t, g.mustDial("rebind.example.test", portEcho), "first")
	b := g.net.names.bind("rebind.example.test")
	<-b.turn
	b.expires = time.Time{}
	b.turn <- struct{}{}
	g.refused("rebind.example.test", portEcho)
	if e := g.await(banger.NetDenied, "rebind.example.test:7"); !strings.Contains(e.Reason, "127.0.0.1") {
		g.t.Errorf("event %+v", e)
	}
}

// checkUDP holds that UDP to a name is no way around the check of names.
func (g *guest) checkUDP() {
	g.t.Helper()
	fake := addresses(g.lookup("www.example.test", dns.TypeA))[0].String()
	const initial = "\xc3\x00\x00\x00\x01\x08hello"
	g.refusedUDP(fake, 443, initial)
	plain := g.udp(fake, portEcho)
	echoes(g.t, plain, "datagram")
	io.WriteString(plain, initial)
	if e := g.await(banger.NetDenied, "www.example.test:7"); e.Reason != "QUIC hides the name it wants" {
		g.t.Errorf("event %+v", e)
	}
}

func TestHelloIsChecked(t *testing.T) {
	g := newGuest(t, "allow=www.example.test")
	hello := clientHello(t, &tls.Config{ServerName: "www.example.test"})
	for _, test := range []struct {
		name   string
		bytes  [][]byte
		reason string
	}{
		{"no name", [][]byte{clientHello(t, &tls.Config{InsecureSkipVerify: true})}, "names no server"},
		{"damaged", [][]byte{append([]byte{22, 3, 1, 0, 4}, 1, 0xff, 0xff, 0xff)}, "damaged"},
	} {
		conn := g.mustDial("www.example.test", portEcho)
		for _, b := range test.bytes {
			conn.Write(b)
		}
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: read %d bytes, %v, want a reset", test.name, n, err)
		}
		g.mu.Lock()
		found := false
		for _, e := range g.events {
			found = found || strings.Contains(e.Reason, test.reason)
		}
		g.mu.Unlock()
		if !found {
			t.Errorf("%s: no event with %q", test.name, test.reason)
		}
	}
	// The echo server sends back what reached it: a hello in pieces arrives whole.
	conn := g.mustDial("www.example.test", portEcho)
	for _, b := range [][]byte{hello[:1], hello[1:40], hello[40:]} {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, len(hello))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, hello) {
		t.Errorf("hello in pieces: %v", err)
	}
}

// Traffic is what was carried: not what nobody let through, nor what the gateway itself answers.
func TestTraffic(t *testing.T) {
	g := newGuest(t, "allow=www.example.test,"+originAddr)
	want := func(what string, sent, received int64) {
		t.Helper()
		g.eventually(what+" is counted", func() bool { return g.net.Traffic() == banger.NetTraffic{SentBytes: sent, ReceivedBytes: received} })
	}
	g.lookup("www.example.test", dns.TypeA)
	g.refused(originAddr6, portEcho)
	g.mustDial("www.example.test", portEcho).Write(clientHello(t, &tls.Config{InsecureSkipVerify: true}))
	g.await(banger.NetDenied, "www.example.test:7")
	g.noFlows()
	if got := g.net.Traffic(); got != (banger.NetTraffic{}) {
		t.Errorf("before anything is carried: %+v", got)
	}
	hello := string(clientHello(t, &tls.Config{ServerName: "www.example.test"}))
	echoes(t, g.mustDial("www.example.test", portEcho), hello)
	n := int64(len(hello))
	want("a checked connection", n, n)
	echoes(t, g.udp(originAddr, portEcho), "hello")
	want("a datagram", n+5, n+5)
	l := g.listen(8000)
	go func() {
		if conn, err := l.Accept(); err == nil {
			io.WriteString(conn, "from the guest")
			conn.Close()
		}
	}()
	conn, err := g.net.DialGuest(t.Context(), 8000)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if text, err := io.ReadAll(conn); err != nil || string(text) != "from the guest" {
		t.Errorf("%q, %v", text, err)
	}
	io.WriteString(conn, "in")
	want("a connection into the guest", n+5+14, n+5+2)
}

func clientHello(t *testing.T, cfg *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		tls.Client(client, cfg).Handshake()
		client.Close()
	}()
	buf := make([]byte, 64<<10)
	n, err := server.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestDenyList(t *testing.T) {
	g := newGuest(t, "full,deny=denied.example.test,cdn.example.test:80,203.0.113.11")
	if _, err := g.web("https", "www.example.test", ""); err != nil {
		t.Error(err)
	}
	g.refused("denied.example.test", portHTTP)
	if _, err := g.web("https", "www.example.test", "denied.example.test"); err == nil {
		t.Error("a denied name is reached by the address of another one")
	}
	if _, err := g.web("https", "cdn.example.test", ""); err != nil {
		t.Error(err)
	}
	if _, err := g.web("http", "cdn.example.test", ""); err == nil {
		t.Error("the denied port of a name is reached")
	}
	g.refused("other.example.test", portEcho)
	g.refused(otherAddr, portEcho)
}

func TestHostPort(t *testing.T) {
	g := newGuest(t, "allow=host:8081")
	l, err := testenv.ServeLine("127.0.0.1:8081", "host")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, host := range []string{"host.banger", Gateway4.String(), Gateway6.String()} {
		if got, err := io.ReadAll(g.mustDial(host, 8081)); err != nil || string(got) != "host\n" {
			t.Errorf("%s: %q, %v", host, got, err)
		}
	}
	if answer := g.lookup("host.banger", dns.TypeAAAA); len(addresses(answer)) != 1 {
		t.Errorf("AAAA of host.banger: %v", answer)
	}
	g.refused("host.banger", 8082)
}

func TestOtherVM(t *testing.T) {
	g := newGuest(t, "full,allow=vm:db:5432,vm:gone")
	if got, err := io.ReadAll(g.mustDial("db.vm", 5432)); err != nil || string(got) != "db:5432" {
		t.Errorf("db.vm: %q, %v", got, err)
	}
	g.refused("db.vm", 22)
	g.refused("gone.vm", 22)
	g.refused("web.vm", 5432)
	if e := g.await(banger.NetDenied, "web.vm"); e.Proto != "dns" {
		t.Errorf("event %+v", e)
	}
}

func TestSetPolicy(t *testing.T) {
	g := newGuest(t, "full")
	kept, cut := g.mustDial("www.example.test", portEcho), g.mustDial(otherAddr, portEcho)
	echoes(t, kept, "before")
	echoes(t, cut, "before")
	packets := g.udp(otherAddr, portEcho)
	echoes(t, packets, "before")
	p, err := banger.ParseNetPolicy("allow=203.0.113.10")
	if err != nil {
		t.Fatal(err)
	}
	g.net.SetPolicy(p)
	if _, err := cut.Read(make([]byte, 1)); err == nil {
		t.Error("a connection goes on that the new policy does not allow")
	}
	echoes(t, kept, "after")
	g.refused(otherAddr, portEcho)
	g.refused("www.example.test", portEcho)
	if e := g.await(banger.NetClosed, otherAddr+":7"); e.Reason != "the policy changed" {
		t.Errorf("event %+v", e)
	}
	g.net.SetPolicy(banger.NetFull)
	echoes(t, g.mustDial("other.example.test", portEcho), "again")
}

func TestUDP(t *testing.T) {
	g := newGuest(t, "full")
	for _, size := range []int{1, 1400, 9000} {
		echoes(t, g.udp(originAddr, portEcho), strings.Repeat("x", size))
	}
	refused := g.udp(originAddr, portClosed)
	io.WriteString(refused, "x")
	if e := g.await(banger.NetClosed, originAddr+":81"); e.Reason != "connection refused" {
		t.Errorf("event %+v", e)
	}
	for _, addr := range []string{privateAddr, metaAddr} {
		g.refusedUDP(addr, portEcho, "x")
	}
}

func TestReset(t *testing.T) {
	g := newGuest(t, "full")
	conn := g.mustDial(originAddr, portFlood)
	if _, err := io.ReadFull(conn, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	conn.Close() // with data unread: the guest resets
	g.noFlows()

	// Another card, as after the death of a supervisor: what was connected is reset, and it works again.
	old := g.mustDial(originAddr, portEcho)
	echoes(t, old, "before")
	g.wire.Close()
	<-g.ended
	g.noFlows()
	g.ip.Destroy()
	g.plug()
	echoes(t, g.mustDial("www.example.test", portEcho), "after")
}

func TestDialGuest(t *testing.T) {
	g := newGuest(t, "none")
	if _, err := g.net.DialGuest(t.Context(), 1); err == nil {
		t.Error("a port is reached that nobody listens on")
	}
	l := g.listen(8000)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			io.Copy(conn, conn)
		}
	}()
	conn, err := g.net.DialGuest(t.Context(), 8000)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echoes(t, conn, "to the guest")
}

func TestManyFlows(t *testing.T) {
	const flows = 1000
	g := newGuest(t, "full")
	var all sync.WaitGroup
	errs := make(chan error, flows)
	limit := make(chan struct{}, 200) // connecting at one time
	for i := range flows {
		all.Go(func() {
			limit <- struct{}{}
			conn, err := g.dial(originAddr, portEcho)
			<-limit
			if err != nil {
				errs <- err
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(2 * patience))
			text := fmt.Sprintf("flow %d %s", i, strings.Repeat("x", i))
			got := make([]byte, len(text))
			_, err = io.WriteString(conn, text)
			if err == nil {
				_, err = io.ReadFull(conn, got)
			}
			if err != nil || string(got) != text {
				errs <- fmt.Errorf("flow %d: %.20q, %v", i, got, err)
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	g.noFlows()
}
