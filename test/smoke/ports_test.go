package smoke

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger/internal/testenv"
)

// guestServer is a web server in the guest, by what its image has.
const guestServer = `cat > /root/server.pl <<'END'
use IO::Socket::INET;
my ($address, $port) = @ARGV;
my $l = IO::Socket::INET->new(Listen => 50, LocalAddr => $address, LocalPort => $port, ReuseAddr => 1) or die "$!";
$0 = "evil\e[2Jname"; open my $f, ">", "/proc/self/comm"; print $f "evil\e[2J"; close $f;
open my $up, ">", "/root/up-$port"; close $up;
while (my $c = $l->accept) {
  my ($line) = scalar <$c>; my $host = ""; while (my $h = <$c>) { $host = $1 if $h =~ /^Host: (\S+)/i; last if $h =~ /^\r?\n/ }
  print $c "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nport $port, host $host\n"; close $c;
}
END
setsid perl /root/server.pl 127.0.0.1 3000 >/dev/null 2>&1 </dev/null &
setsid perl /root/server.pl 0.0.0.0 80 >/dev/null 2>&1 </dev/null &
while ! [ -e /root/up-3000 -a -e /root/up-80 ]; do sleep 0.1; done`

type portRow struct {
	Port     int    `json:"port"`
	Process  string `json:"process"`
	Endpoint string `json:"endpoint"`
	Error    *struct {
		Kind string `json:"kind"`
		Hint string `json:"hint"`
	} `json:"error"`
}

func fetch(t *testing.T, url, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := (&http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// What listens in a guest without a network card is reached by its pinned port, on its own address, by the HTTP entry and by name.
func TestPorts(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	pinned := testenv.FreePort(t)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	wantStatus(t, w.Run("vm", "run", "--rm", "-p", fmt.Sprintf("%d:80", taken), "--", "true"), 125, "taken by ", fmt.Sprintf(":%d", taken))
	wantStatus(t, w.Run("vm", "create", "-p", "80:80:80:80"), 2, "in brackets")
	if rows := listVMs(w); len(rows) != 0 {
		t.Fatalf("refused machines are left: %+v", rows)
	}
	w.Must("vm", "run", "--name", "web", "-p", fmt.Sprintf("%d:80", pinned), "--", "sh", "-c", guestServer)

	if status, body := fetch(t, fmt.Sprintf("http://127.0.0.1:%d/", pinned), "x"); status != 200 || body != "port 80, host x\n" {
		t.Errorf("the pinned port gives %d %q", status, body)
	}
	var list []struct {
		HTTP      string    `json:"http"`
		Address   string    `json:"address"`
		Listeners []portRow `json:"listeners"`
	}
	w.JSON(&list, "vm", "ports", "web")
	if len(list) != 1 || len(list[0].Listeners) != 2 {
		t.Fatalf("vm ports gives %+v", list)
	}
	low, high := list[0].Listeners[0], list[0].Listeners[1]
	if high.Port != 3000 || high.Endpoint != list[0].Address+":3000" || high.Process != `evil\x1b[2J` && high.Process != `evil\u001b[2J` {
		t.Errorf("port 3000: %+v of %+v", high, list[0])
	}
	if status, body := fetch(t, "http://"+high.Endpoint+"/", "x"); status != 200 || body != "port 3000, host x\n" {
		t.Errorf("the VM's own address gives %d %q", status, body)
	}
	if low.Port != 80 || low.Endpoint == "" && (low.Error == nil || low.Error.Kind != "refused" || !strings.Contains(low.Error.Hint, "ip_unprivileged_port_start=80")) {
		t.Errorf("port 80: %+v, want it open or told how to", low)
	}
	if r := w.Run("vm", "ports", "web"); r.Status != 0 || strings.Contains(r.Stdout, "\x1b") || !strings.Contains(r.Stdout, "http://3000.web.localhost:") {
		t.Errorf("vm ports: %d %q", r.Status, r.Stdout)
	}
	for host, want := range map[string]int{"3000.web.localhost": 200, "80.web.localhost": 200, "3000.nobody.localhost": 421, "evil.example": 421, "3001.web.localhost": 502} {
		if status, body := fetch(t, "http://"+list[0].HTTP+"/", host); status != want {
			t.Errorf("HTTP entry for %s gives %d %q, want %d", host, status, body, want)
		}
	}
	resolves(t, w, list[0].Address)

	w.Must("vm", "stop", "web")
	if status, _ := fetch(t, fmt.Sprintf("http://127.0.0.1:%d/", pinned), "x"); status != 0 {
		t.Errorf("the pinned port of a stopped machine answers %d", status)
	}
	if status, body := fetch(t, "http://"+list[0].HTTP+"/", "3000.web.localhost"); status != 503 || !strings.Contains(body, "banger vm start web") {
		t.Errorf("HTTP entry of a stopped machine gives %d %q", status, body)
	}
	wantStatus(t, w.Run("vm", "ports", "web"), 4, "it is stopped")
	w.Must("vm", "delete", "web")
}

// resolves asks the daemon's server for names: the answer is the address, and what listens has been opened there.
func resolves(t *testing.T, w *testenv.World, address string) {
	t.Helper()
	var status struct {
		DNS string `json:"dns"`
	}
	w.JSON(&status, "daemon", "status")
	w.Must("vm", "exec", "web", "--", "sh", "-c", "setsid perl /root/server.pl 127.0.0.1 3333 >/dev/null 2>&1 </dev/null & while ! [ -e /root/up-3333 ]; do sleep 0.1; done")
	reply, err := dns.Exchange(new(dns.Msg).SetQuestion("web.vm.", dns.TypeA), status.DNS)
	if err != nil || len(reply.Answer) != 1 || !strings.HasSuffix(reply.Answer[0].String(), "\t"+address) {
		t.Fatalf("web.vm = %v, %v, want %s", reply, err, address)
	}
	// What the agent has seen holds for a second: a later look-up opens the port.
	testenv.WaitFor(t, time.Minute, "a look-up to open the port", func() bool {
		dns.Exchange(new(dns.Msg).SetQuestion("web.vm.", dns.TypeA), status.DNS)
		code, _ := fetch(t, "http://"+address+":3333/", "x")
		return code == 200
	})
	for name, want := range map[string]int{"nobody.vm.": dns.RcodeNameError, "example.org.": dns.RcodeRefused} {
		if reply, err := dns.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), status.DNS); err != nil || reply.Rcode != want {
			t.Errorf("%s = %v, %v, want %s", name, reply, err, dns.RcodeToString[want])
		}
	}
}
