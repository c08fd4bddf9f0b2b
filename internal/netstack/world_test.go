package netstack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Servers of the world.
const (
	originAddr  = "203.0.113.10"
	otherAddr   = "203.0.113.11"
	privateAddr = "10.9.9.9"
	lanAddr     = "192.0.2.254"
	metaAddr    = "169.254.169.254"
	originAddr6 = "2001:db8:9::10"
	dnsAddr     = "203.0.113.53"
	silentAddr  = "203.0.113.99" // drops everything
)

const (
	portEcho   = 7
	portSink   = 9  // counts what comes until the end, then tells the number
	portStuck  = 10 // never reads
	portFlood  = 19 // sends without end
	portHTTP   = 80
	portTLS    = 443
	portClosed = 81
)

// worldMain is the internet.
func worldMain() error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the wire is there
		return err
	}
	lines := `
link set lo up
addr add 192.0.2.254/24 dev w0
addr add 2001:db8:1::fe/64 dev w0 nodad
link set w0 up
route add 198.51.100.0/24 via 192.0.2.1
route add 203.0.113.1/32 via 192.0.2.1
route add blackhole 203.0.113.99/32`
	for _, addr := range []string{originAddr, otherAddr, privateAddr, metaAddr, dnsAddr} {
		lines += "\naddr add " + addr + "/32 dev lo"
	}
	lines += "\naddr add " + originAddr6 + "/128 dev lo"
	if err := ip(lines); err != nil {
		return err
	}
	for port, serve := range map[int]func(net.Conn){portEcho: echoServer, portSink: sinkServer, portStuck: func(net.Conn) { select {} }, portFlood: floodServer} {
		if err := serveTCP(port, serve); err != nil {
			return err
		}
	}
	if err := serveWeb(); err != nil {
		return err
	}
	for _, addr := range []string{originAddr, otherAddr} {
		if err := echoPackets(net.JoinHostPort(addr, "7"), net.JoinHostPort(addr, "443")); err != nil {
			return err
		}
	}
	if err := serveNames(); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

func serveTCP(port int, serve func(net.Conn)) error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return nil
}

func echoServer(conn net.Conn) {
	defer conn.Close()
	io.Copy(conn, conn)
}

func sinkServer(conn net.Conn) {
	defer conn.Close()
	n, _ := io.Copy(io.Discard, conn)
	fmt.Fprintf(conn, "%d", n)
}

func floodServer(conn net.Conn) {
	defer conn.Close()
	for b := make([]byte, 64<<10); ; {
		if _, err := conn.Write(b); err != nil {
			return
		}
	}
}

func serveWeb() error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		fmt.Fprintf(w, "%s at %s", r.Host, local)
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"*.example.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", fmt.Sprintf(":%d", portHTTP))
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", fmt.Sprintf(":%d", portTLS), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		return err
	}
	go http.Serve(plain, handler)
	go http.Serve(secure, handler)
	return nil
}

func echoPackets(addrs ...string) error {
	for _, addr := range addrs {
		conn, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		go func() {
			for b := make([]byte, 64<<10); ; {
				n, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				conn.WriteTo(b[:n], from)
			}
		}()
	}
	return nil
}

// serveNames is the zone example.test.
func serveNames() error {
	var rebound atomic.Int32
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(query)
		q := query.Question[0]
		add := func(kind uint16, text string) {
			if q.Qtype != kind {
				return
			}
			rr, err := dns.NewRR(fmt.Sprintf("%s 1 IN %s %s", q.Name, dns.TypeToString[kind], text))
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		switch strings.TrimSuffix(strings.ToLower(q.Name), ".example.test.") {
		case "www", "dual", "cdn", "denied":
			add(dns.TypeA, originAddr)
			add(dns.TypeAAAA, originAddr6)
			add(dns.TypeHTTPS, `1 . alpn="h2" ipv4hint="203.0.113.10" ech="AEX+DQBB"`)
			add(dns.TypeTXT, `"hello"`)
		case "other":
			add(dns.TypeA, otherAddr)
		case "six":
			add(dns.TypeAAAA, originAddr6)
		case "private":
			add(dns.TypeA, privateAddr)
		case "loop":
			add(dns.TypeA, "127.0.0.1")
		case "rebind":
			if rebound.Add(1) > 1 {
				add(dns.TypeA, "127.0.0.1")
			} else {
				add(dns.TypeA, originAddr)
			}
		case "big":
			for i := range 100 {
				add(dns.TypeA, fmt.Sprintf("203.0.113.%d", i+100))
			}
		case "fail":
			m.Rcode = dns.RcodeServerFailure
		default:
			m.Rcode = dns.RcodeNameError
		}
		if w.LocalAddr().Network() == "udp" {
			m.Truncate(udpSize(query))
		}
		w.WriteMsg(m)
	})
	for _, network := range []string{"udp", "tcp"} {
		server := &dns.Server{Addr: net.JoinHostPort(dnsAddr, "53"), Net: network, Handler: handler}
		started := make(chan error, 1)
		server.NotifyStartedFunc = func() { started <- nil }
		go func() { started <- server.ListenAndServe() }()
		if err := <-started; err != nil {
			return err
		}
	}
	return nil
}

func worldServers() ([]netip.AddrPort, error) {
	return []netip.AddrPort{netip.MustParseAddrPort(dnsAddr + ":53")}, nil
}

// hostListener is a server on the host's own side, which a guest must not reach.
func hostListener(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, "host")
			}()
		}
	}()
	return l, nil
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
