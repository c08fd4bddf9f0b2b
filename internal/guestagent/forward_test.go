package guestagent

import (
	"net"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestParseDirect(t *testing.T) {
	for _, tc := range []struct {
		name    string
		kind    string
		payload any
		want    target
		ok      bool
	}{
		{"a name", directTCP, tcpPayload{"localhost", 80, "127.0.0.1", 1}, target{"tcp", "localhost:80"}, true},
		{"IPv6", directTCP, tcpPayload{"::1", 65535, "", 0}, target{"tcp", "[::1]:65535"}, true},
		{"port 0", directTCP, tcpPayload{"localhost", 0, "", 0}, target{}, false},
		{"port too large", directTCP, tcpPayload{"localhost", 65536, "", 0}, target{}, false},
		{"a part only", directTCP, listenPayload{"localhost", 80}, target{}, false},
		{"a socket", directUnix, directUnixPayload{"/run/x", "", 0}, target{"unix", "/run/x"}, true},
		{"no path", directUnix, directUnixPayload{"", "", 0}, target{}, false},
		{"NUL", directUnix, directUnixPayload{"/a\x00b", "", 0}, target{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := parseDirect(tc.kind, ssh.Marshal(tc.payload))
			if ok != tc.ok || ok && got != tc.want {
				t.Errorf("parseDirect(%v) = %v, %v, want %v, %v", tc.payload, got, ok, tc.want, tc.ok)
			}
		})
	}
}

// What is taken for an address is one that Go's net takes apart again, with a port in range or a path without NUL.
func FuzzParseForward(f *testing.F) {
	f.Add(directTCP, ssh.Marshal(tcpPayload{"localhost", 80, "127.0.0.1", 1}))
	f.Add(directUnix, ssh.Marshal(directUnixPayload{"/run/x", "", 0}))
	f.Add(forwardTCP, ssh.Marshal(listenPayload{"", 0}))
	f.Add(forwardUnix, ssh.Marshal(unixPayload{"/run/x"}))
	f.Fuzz(func(t *testing.T, kind string, payload []byte) {
		for _, parse := range []func(string, []byte) (target, bool){parseDirect, parseForward} {
			got, ok := parse(kind, payload)
			if !ok {
				continue
			}
			switch got.network {
			case "unix":
				if got.address == "" || hasNUL(got.address) {
					t.Errorf("%q %q: path %q", kind, payload, got.address)
				}
			case "tcp":
				_, port, err := net.SplitHostPort(got.address)
				if n, lookErr := net.LookupPort("tcp", port); err == nil && (lookErr != nil || n < 0 || n > 65535) {
					t.Errorf("%q %q: port %q", kind, payload, port)
				}
			default:
				t.Errorf("%q %q: network %q", kind, payload, got.network)
			}
		}
	})
}
