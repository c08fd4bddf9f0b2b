package network

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/channel"
	"banger/internal/machine"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

// What is measured here, and ways of copies.
const (
	intoGuest  = "copy into the guest, MB/s"
	outOfGuest = "copy out of the guest, MB/s"
	signedIn   = "ssh NAME true, ms"
	guestTime  = ", ns of QEMU's processor time a byte" // of a copy

	raw       = "the raw channel"
	rawToFile = "the raw channel, a file" // in memory, as the others have it
	vmCopy    = "banger vm cp"
	sshStream = "an ssh stream"
	scp       = "scp"
	sftp      = "sftp"
	inGuest   = "handshake in the guest"
)

const (
	rawSink   = 9 // see inside
	rawFile   = 10
	rawSource = 19
	rawBack   = 20
	signIns   = 9 // of one turn
)

// copier copies a file of the host into a guest and out of it. Both land on a file system in memory: what the disk costs is told by
// comparing vm cp with itself.
type copier struct {
	b          *testing.B
	w          *testenv.World
	config     string
	file, back string
	size       int
}

// BenchmarkCopies compares ways into a guest and out of it.
func BenchmarkCopies(b *testing.B) {
	for _, tool := range []string{"ssh", "scp", "sftp"} {
		testenv.RequireTool(b, tool)
	}
	w := testenv.NewWorld(b)
	w.LogHost()
	g := startBare(b, w)
	w.Must("vm", "run", "--name", "box", "--", "true")
	w.Must("vm", "cp", inside(b, w), "box:/usr/local/bin/inside")
	var vm struct {
		Dir string `json:"dir"`
	}
	w.JSON(&vm, "vm", "show", "box")
	handles, err := machine.ReadHandles(statedir.VMDir{Path: vm.Dir})
	if err != nil {
		b.Fatal(err)
	}
	box := handles.VMM.PID
	dir := w.User.Dir(b)
	c := copier{b: b, w: w, config: strings.TrimSpace(w.Must("ssh-config", "--print-path")), file: filepath.Join(dir, "data"),
		back: filepath.Join(dir, "back"), size: testenv.Number("BANGER_BENCH_MIB", 128) << 20}
	data := make([]byte, c.size)
	rand.Read(data) // zeros would travel as holes
	if err := os.WriteFile(c.file, data, 0o644); err != nil {
		b.Fatal(err)
	}
	// Pairs: into the guest, and out of it what the first has brought.
	ways := []struct {
		name    string
		in, out func()
	}{
		{raw, func() { c.rawIn(g, rawSink, data) }, func() { c.rawOut(g, rawSource) }},
		{rawToFile, func() { c.rawIn(g, rawFile, data) }, func() { c.rawOut(g, rawBack) }},
		{vmCopy, func() { w.Must("vm", "cp", c.file, "box:/dev/shm/copy") }, func() { w.Must("vm", "cp", "box:/dev/shm/copy", c.back) }},
		{vmCopy + " to a disk", func() { w.Must("vm", "cp", c.file, "box:/root/vmcp") }, func() { w.Must("vm", "cp", "box:/root/vmcp", c.back) }},
		{sshStream, func() { c.ssh(c.file, "", "cat > /dev/shm/copy") }, func() { c.ssh("", c.back, "cat /dev/shm/copy") }},
		{scp, func() { c.run("", "", "scp", "-q", "-F", c.config, c.file, "box.vm:/dev/shm/copy") },
			func() { c.run("", "", "scp", "-q", "-F", c.config, "box.vm:/dev/shm/copy", c.back) }},
		{sftp, func() { c.sftp("put " + c.file + " /dev/shm/copy") }, func() { c.sftp("get /dev/shm/copy " + c.back) }},
	}
	all := results{}
	for i := range runs() {
		for j := range ways {
			way := ways[(i+j)%len(ways)]
			qemu := box
			if way.name == raw || way.name == rawToFile {
				qemu = g.pids.QEMU
			}
			c.measure(all, intoGuest, way.name, qemu, way.in)
			c.measure(all, outOfGuest, way.name, qemu, way.out)
		}
		for range signIns {
			begun := time.Now()
			c.ssh("", "", "true")
			all.add(signedIn, sshStream, float64(time.Since(begun).Microseconds())/1000)
		}
		figures := decode(b, w.Must("vm", "exec", "box", "--", "inside", "handshake", strconv.Itoa(signIns)))
		all.add(signedIn, inGuest, figures["handshake"]/1000)
	}
	for _, what := range []string{intoGuest, outOfGuest, intoGuest + guestTime, outOfGuest + guestTime} {
		all.report(b, what, raw, rawToFile, vmCopy, vmCopy+" to a disk", sshStream, scp, sftp)
	}
	all.report(b, signedIn, sshStream, inGuest)
	names := map[string]string{raw: "raw", rawToFile: "raw-file", vmCopy: "vm-cp", vmCopy + " to a disk": "vm-cp-disk", sshStream: "ssh", scp: "scp", sftp: "sftp"}
	for direction, what := range map[string]string{"in": intoGuest, "out": outOfGuest} {
		for way, name := range names {
			b.ReportMetric(all.median(what, way), direction+"-"+name+"-MB/s")
			b.ReportMetric(all.median(what+guestTime, way), direction+"-"+name+"-qemu-ns/B")
		}
		all.metric(b, direction+"-vm-cp/raw", what, vmCopy, what, raw)
		all.metric(b, direction+"-vm-cp/raw-file", what, vmCopy, what, rawToFile)
		all.metric(b, direction+"-scp/ssh", what, scp, what, sshStream)
		all.metric(b, direction+"-sftp/ssh", what, sftp, what, sshStream)
	}
	b.ReportMetric(all.median(signedIn, sshStream), "ssh-true-ms")
	all.metric(b, "ssh-true/guest", signedIn, sshStream, signedIn, inGuest)
}

// measure gives MB/s, and what a byte costs the process in which the guest is emulated: that depends little on what else this computer does.
func (c copier) measure(all results, what, way string, qemu int, fn func()) {
	c.b.Helper()
	used, begun := processorTime(c.b, qemu), time.Now()
	fn()
	took := time.Since(begun)
	all.add(what, way, float64(c.size)/1e6/took.Seconds())
	all.add(what+guestTime, way, float64((processorTime(c.b, qemu)-used).Nanoseconds())/float64(c.size))
}

// processorTime is what a process has used of it, by proc_pid_stat(5).
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	const user, system, tick = 11, 12, 10 * time.Millisecond // fields after the name; USER_HZ is 100
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var used time.Duration
	for _, i := range []int{user, system} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			b.Fatal(err)
		}
		used += time.Duration(n) * tick
	}
	return used
}

// run runs a program as the world's user, with files as standard input and output where they are named.
func (c copier) run(stdin, stdout string, argv ...string) {
	c.b.Helper()
	like := c.w.Command(context.Background())
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = like.Env, like.Dir, like.SysProcAttr
	if stdin != "" {
		in, err := os.Open(stdin)
		if err != nil {
			c.b.Fatal(err)
		}
		defer in.Close()
		cmd.Stdin = in
	}
	if stdout != "" {
		out, err := os.Create(stdout)
		if err != nil {
			c.b.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout = out
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		c.b.Fatalf("%q: %v\n%s", argv, err, errs.String())
	}
}

func (c copier) ssh(stdin, stdout, command string) {
	c.b.Helper()
	c.run(stdin, stdout, "ssh", "-F", c.config, "box.vm", command)
}

func (c copier) sftp(line string) {
	c.b.Helper()
	batch := filepath.Join(filepath.Dir(c.file), "batch")
	if err := os.WriteFile(batch, []byte(line+"\n"), 0o644); err != nil {
		c.b.Fatal(err)
	}
	c.run("", "", "sftp", "-q", "-F", c.config, "-b", batch, "box.vm")
}

func (c copier) rawIn(g *bareGuest, port uint32, data []byte) {
	conn, err := channel.Dial(context.Background(), g.raw, port)
	if err != nil {
		c.b.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(data); err != nil {
		c.b.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		c.b.Fatal(err)
	}
	if n, err := io.ReadAll(conn); err != nil || string(n) != strconv.Itoa(len(data)) {
		c.b.Fatalf("%d bytes were sent, %.30q arrived (%v)", len(data), n, err)
	}
}

func (c copier) rawOut(g *bareGuest, port uint32) {
	conn, err := channel.Dial(context.Background(), g.raw, port)
	if err != nil {
		c.b.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(c.size))); err != nil {
		c.b.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, conn); err != nil || n != int64(c.size) {
		c.b.Fatal(fmt.Errorf("%d bytes were asked for, %d came (%w)", c.size, n, err))
	}
}
