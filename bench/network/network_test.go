// Package network measures what a guest's network carries, beside the same from a process of the host: from the guest's own
// programs, through its card, QEMU, the user-mode stack and sockets, to servers in another network namespace.
//
// BANGER_BENCH_RUNS is how often each way runs (5). What is compared takes turns in one run.
package network

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"banger/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.MaybeInternetMain()
	status := m.Run()
	if err := testenv.RemoveGolden(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

const megabytes = 64

// program moves data over TCP and times requests, and prints MB/s from here, MB/s to here, microseconds for a request and its
// answer, and microseconds for a look-up with a connection.
const program = `
use strict; use IO::Socket::INET; use Time::HiRes qw(time);
my $origin = shift;
sub conn { IO::Socket::INET->new(PeerAddr => $_[0], PeerPort => $_[1]) or die "$_[0]:$_[1]: $!" }
my $s = conn($origin, 9); my $chunk = "x" x 1048576; my $t = time;
print $s $chunk for 1..%[1]d; shutdown $s, 1; my $n = <$s>; die "arrived: $n" unless $n == %[1]d * 1048576;
my $out = %[1]d / (time - $t);
$s = conn($origin, 19); $t = time; my $got = 0;
while ($got < %[1]d * 1048576) { my $r = sysread $s, my $b, 1048576; die "$!" unless $r; $got += $r }
my $in = %[1]d / (time - $t); close $s;
$s = conn($origin, 7); $t = time;
for (1..500) { syswrite $s, "ping"; my $b = ""; while (length $b < 4) { sysread($s, $b, 4 - length $b, length $b) or die } }
my $rr = (time - $t) / 500 * 1e6;
$t = time; close conn("www.example.test", 7) for 1..50;
my $connect = (time - $t) / 50 * 1e6;
printf "%%.1f %%.1f %%.1f %%.1f\n", $out, $in, $rr, $connect;
`

var columns = []string{"from the guest, MB/s", "to the guest, MB/s", "request and answer, us", "look-up and connect, us"}

func BenchmarkNetwork(b *testing.B) {
	perl := testenv.RequireTool(b, "perl")
	w := testenv.NewOnlineWorld(b)
	w.Must("vm", "run", "--name", "box", "--", "true")
	w.Must("vm", "run", "--name", "listed", "--net", "allow=www.example.test,"+testenv.OriginAddr, "--", "true")
	source := fmt.Sprintf(program, megabytes)
	ways := []struct {
		name string
		run  func() (string, error)
	}{
		{"host", func() (string, error) {
			out, err := exec.Command(perl, "-e", source, testenv.OriginAddr).Output()
			return string(out), err
		}},
		{"guest, full", func() (string, error) {
			return w.Must("vm", "exec", "box", "--", "perl", "-e", source, testenv.OriginAddr), nil
		}},
		{"guest, allow list", func() (string, error) {
			return w.Must("vm", "exec", "listed", "--", "perl", "-e", source, testenv.OriginAddr), nil
		}},
	}
	figures := map[string][][]float64{}
	for range runs() {
		for _, way := range ways {
			out, err := way.run()
			if err != nil {
				b.Fatalf("%s: %v", way.name, err)
			}
			row := make([]float64, len(columns))
			for i, text := range strings.Fields(out) {
				if row[i], err = strconv.ParseFloat(text, 64); err != nil {
					b.Fatal(err)
				}
			}
			figures[way.name] = append(figures[way.name], row)
		}
	}
	for i, column := range columns {
		for _, way := range ways {
			var list []float64
			for _, row := range figures[way.name] {
				list = append(list, row[i])
			}
			slices.Sort(list)
			b.Logf("%-26s %-18s median %9.1f, from %.1f to %.1f, %d runs", column, way.name, list[len(list)/2], list[0], list[len(list)-1], len(list))
		}
	}
}

func runs() int {
	if n, err := strconv.Atoi(os.Getenv("BANGER_BENCH_RUNS")); err == nil && n > 0 {
		return n
	}
	return 5
}
