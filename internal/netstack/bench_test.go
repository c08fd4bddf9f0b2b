package netstack

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/miekg/dns"

	"banger/internal/testenv"
)

// The benchmarks have a guest in this process at the other end of the wire; "direct" is the same from a socket of the host.
// They show what the stack itself costs, without a VMM.

func dialers(b *testing.B, policy string) map[string]func(host string, port uint16) (net.Conn, error) {
	g := newGuest(b, policy)
	return map[string]func(string, uint16) (net.Conn, error){
		"guest": func(host string, port uint16) (net.Conn, error) { return g.dial(host, port) },
		"direct": func(host string, port uint16) (net.Conn, error) {
			if net.ParseIP(host) != nil {
				return net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
			}
			query := new(dns.Msg)
			query.SetQuestion(dns.Fqdn(host), dns.TypeA)
			answer, err := dns.Exchange(query, testenv.DNSAddr+":53")
			if err != nil {
				return nil, err
			}
			return net.Dial("tcp", net.JoinHostPort(addresses(answer)[0].String(), fmt.Sprint(port)))
		},
	}
}

func BenchmarkFromGuest(b *testing.B) {
	for name, dial := range dialers(b, "full") {
		b.Run(name, func(b *testing.B) {
			conn, err := dial(originAddr, portSink)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			chunk := make([]byte, 1<<20)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, err := conn.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkToGuest(b *testing.B) {
	for name, dial := range dialers(b, "full") {
		b.Run(name, func(b *testing.B) {
			conn, err := dial(originAddr, portFlood)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			chunk := make([]byte, 1<<20)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, err := io.ReadFull(conn, chunk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRequest(b *testing.B) {
	for name, dial := range dialers(b, "full") {
		b.Run(name, func(b *testing.B) {
			conn, err := dial(originAddr, portEcho)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			buf := make([]byte, 64)
			for b.Loop() {
				if _, err := conn.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLookUpAndConnect(b *testing.B) {
	for _, policy := range []string{"full", "allow=www.example.test"} {
		for name, dial := range dialers(b, policy) {
			b.Run(name+"/"+policy, func(b *testing.B) {
				for b.Loop() {
					conn, err := dial("www.example.test", portEcho)
					if err != nil {
						b.Fatal(err)
					}
					conn.Close()
				}
			})
		}
	}
}
