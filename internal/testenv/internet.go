package testenv

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// The internet of tests: a network namespace with servers, on the other end of a wire and a router away from the namespace of
// who uses it, which is 192.0.2.1, 2001:db8:1::1, and 203.0.113.1 besides. Its names are below example.test.
const (
	OriginAddr  = "203.0.113.10" // www, dual, cdn, denied, apt, git, npm
	OtherAddr   = "203.0.113.11" // other
	PrivateAddr = "10.9.9.9"     // private
	LANAddr     = "192.0.2.254"
	MetaAddr    = "169.254.169.254"
	OriginAddr6 = "2001:db8:9::10" // www, dual, cdn, denied and six
	DNSAddr     = "203.0.113.53"
	SilentAddr  = "203.0.113.99" // drops everything
)

// Ports of the servers, which listen on every address.
const (
	PortEcho   = 7
	PortSink   = 9  // counts what comes until the end, then tells the number
	PortStuck  = 10 // never reads
	PortFlood  = 19 // sends without end
	PortHTTP   = 80
	PortClosed = 81
	PortTLS    = 443
)

// envInternet makes a test's program the internet.
const envInternet = "BANGER_TEST_INTERNET"

// MaybeInternetMain is the first call of the TestMain of a package that uses [StartInternet].
func MaybeInternetMain() {
	if os.Getenv(envInternet) == "" {
		return
	}
	if err := internetMain(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// StartInternet makes the internet and the wire to it from the network namespace of the calling thread, which must be new, and
// waits until its servers listen. The end of the process it gives, or of this one, ends it.
func StartInternet() (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envInternet+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err = ip(fmt.Sprintf(`
link set lo up
link add up0 type veth peer name w0 netns %d
addr add 192.0.2.1/24 dev up0
addr add 203.0.113.1/32 dev lo
addr add 2001:db8:1::1/64 dev up0 nodad
link set up0 up
route add default via 192.0.2.254
-6 route add default via 2001:db8:1::fe dev up0`, cmd.Process.Pid))
	if err == nil {
		_, err = io.WriteString(in, "go")
	}
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, len("ready")))
	}
	if err != nil {
		cmd.Process.Kill()
		return nil, errors.Join(fmt.Errorf("the internet of tests does not come up: %w", err), cmd.Wait())
	}
	return cmd, nil
}

func ip(lines string) error {
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}

func internetMain() error {
	if _, err := io.ReadFull(os.Stdin, make([]byte, len("go"))); err != nil { // the wire is there
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
	for _, addr := range []string{OriginAddr, OtherAddr, PrivateAddr, MetaAddr, DNSAddr} {
		lines += "\naddr add " + addr + "/32 dev lo"
	}
	lines += "\naddr add " + OriginAddr6 + "/128 dev lo"
	if err := ip(lines); err != nil {
		return err
	}
	for port, serve := range map[int]func(net.Conn){PortEcho: echoServer, PortSink: sinkServer, PortStuck: func(net.Conn) { select {} }, PortFlood: floodServer} {
		if err := serveTCP(port, serve); err != nil {
			return err
		}
	}
	if err := serveWeb(); err != nil {
		return err
	}
	for _, addr := range []string{OriginAddr, OtherAddr} {
		if err := echoPackets(net.JoinHostPort(addr, "7"), net.JoinHostPort(addr, "443")); err != nil {
			return err
		}
	}
	if err := serveNames(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin) // until who started it ends
	return err
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
	cert, err := certificate()
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", fmt.Sprintf(":%d", PortHTTP))
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", fmt.Sprintf(":%d", PortTLS), &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0) // clients that are cut off are what is tested
	server := &http.Server{Handler: webServer(), ErrorLog: quiet}
	go server.Serve(plain)
	go server.Serve(secure)
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
		case "www", "dual", "cdn", "denied", "apt", "git", "npm":
			add(dns.TypeA, OriginAddr)
			add(dns.TypeAAAA, OriginAddr6)
			add(dns.TypeHTTPS, `1 . alpn="h2" ipv4hint="203.0.113.10" ech="AEX+DQBB"`)
			add(dns.TypeTXT, `"hello"`)
		case "other":
			add(dns.TypeA, OtherAddr)
		case "six":
			add(dns.TypeAAAA, OriginAddr6)
		case "private":
			add(dns.TypeA, PrivateAddr)
		case "loop":
			add(dns.TypeA, "127.0.0.1")
		case "rebind":
			if rebound.Add(1) > 1 {
				add(dns.TypeA, "127.0.0.1")
			} else {
				add(dns.TypeA, OriginAddr)
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
			size := dns.MinMsgSize
			if opt := query.IsEdns0(); opt != nil {
				size = max(size, int(opt.UDPSize()))
			}
			m.Truncate(size)
		}
		w.WriteMsg(m)
	})
	for _, network := range []string{"udp", "tcp"} {
		server := &dns.Server{Addr: net.JoinHostPort(DNSAddr, "53"), Net: network, Handler: handler}
		started := make(chan error, 1)
		server.NotifyStartedFunc = func() { started <- nil }
		go func() { started <- server.ListenAndServe() }()
		if err := <-started; err != nil {
			return err
		}
	}
	return nil
}

// ServeLine is a server in the network namespace of the calling thread that says a line to everybody.
func ServeLine(addr, line string) (net.Listener, error) {
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
			fmt.Fprintln(conn, line)
			conn.Close()
		}
	}()
	return l, nil
}

// NewOnlineWorld makes a world and goes online with it.
func NewOnlineWorld(t testing.TB) *World {
	t.Helper()
	w := NewWorld(t)
	w.GoOnline()
	return w
}

// GoOnline has what the test starts from now on run in a network namespace with the internet of tests; the package's TestMain begins with
// MaybeInternetMain. The goroutine of the test keeps its thread, which is in there. No daemon may run.
func (w *World) GoOnline() {
	t := w.t
	t.Helper()
	RequireTool(t, "ip")
	if os.Getuid() != 0 {
		Skip(t, "root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	internet, err := StartInternet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		internet.Process.Kill()
		internet.Wait()
	})
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
		t.Fatal(err)
	}
	resolver := filepath.Join(w.User.Dir(t), "resolv.conf")
	if err := os.WriteFile(resolver, []byte("nameserver "+DNSAddr+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(resolver, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}
