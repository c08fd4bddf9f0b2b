// Package workspace measures what banger promises about a large repository's way into a guest and back.
//
// The repository is generated: 50,000 files and 5,000 commits. Preparing it is compared with what a developer can do without
// banger over the same channel: `git clone --depth 10` inside the guest, from a git daemon of the host that OpenSSH forwards to the
// guest (-R, through `banger ssh-proxy`). Both end with the last ten commits and the files on the guest's disk; the clone
// has git in the guest, which is the host's own program, and prepare syncs the disk, which git does not.
//
// BANGER_BENCH_RUNS is how often each way runs (3); BANGER_BENCH_FILES and BANGER_BENCH_COMMITS make a smaller repository to try it with, of
// 5,000 files at least.
package workspace

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger/internal/statedir"
	"banger/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.Main(m)
}

func runs() int { return testenv.Number("BANGER_BENCH_RUNS", 3) }

// report logs what a list of times is like and gives the median in seconds.
func report(b *testing.B, what string, list []time.Duration) float64 {
	slices.Sort(list)
	m := list[len(list)/2]
	b.Logf("%-48s median %7.2f s, from %.2f to %.2f, %d runs", what, m.Seconds(), list[0].Seconds(), list[len(list)-1].Seconds(), len(list))
	return m.Seconds()
}

// bench is a world with the repository and a VM.
type bench struct {
	*testenv.World
	b    *testing.B
	repo string
	most sync.Map // by program: the most private memory of one process of it, in KiB
}

func newBench(b *testing.B) *bench {
	for _, tool := range []string{"git", "ssh"} {
		testenv.RequireTool(b, tool)
	}
	w := &bench{World: testenv.NewWorld(b), b: b}
	w.LogHost()
	w.repo = filepath.Join(w.User.Dir(b), "large")
	w.git(filepath.Dir(w.repo), "init", "-q", "-b", "main", w.repo)
	large := testenv.Repo{Files: testenv.Number("BANGER_BENCH_FILES", 50_000), Commits: testenv.Number("BANGER_BENCH_COMMITS", 5_000)}
	begun := time.Now()
	cmd := exec.Command("git", "-C", w.repo, "fast-import", "--quiet", "--done")
	w.User.As(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	var streamed error
	go func() {
		streamed = large.Stream(in)
		in.Close()
	}()
	if out, err := cmd.CombinedOutput(); err != nil || streamed != nil {
		b.Fatalf("git fast-import: %v, %v: %s", err, streamed, out)
	}
	w.git(w.repo, "reset", "-q", "--hard", "main")
	b.Logf("%d files and %d commits made in %.1f s", large.Files, large.Commits, time.Since(begun).Seconds())
	w.Must("vm", "run", "--name", "box", "--memory", "2G", "--disk-size", "12G", "--", "true")
	w.Must("vm", "cp", testenv.RequireTool(b, "git"), "box:/usr/local/bin/git")
	w.guest("git config --global --add safe.directory '*'")
	return w
}

// git runs git as the world's user.
func (w *bench) git(dir string, args ...string) string {
	w.b.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=A U Thor", "-c", "user.email=author@example.com"}, args...)...)
	cmd.Dir = dir
	w.User.As(cmd)
	r := testenv.Capture(w.b, cmd)
	if r.Status != 0 {
		w.b.Fatalf("git %q: %s", args, r.Stderr)
	}
	return r.Stdout
}

// took runs banger and gives how long that takes, noting how much memory its processes and git's have.
func (w *bench) took(args ...string) time.Duration {
	w.b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var sampling sync.WaitGroup
	sampling.Go(func() { w.sample(ctx) })
	patience, stop := context.WithTimeout(context.Background(), 15*time.Minute)
	defer stop()
	r := testenv.Capture(w.b, w.Command(patience, args...))
	cancel()
	sampling.Wait()
	if r.Status != 0 {
		w.b.Fatalf("banger %q: status %d: %s", args, r.Status, r.Stderr)
	}
	return r.Elapsed
}

// sample notes the private memory of banger's own processes: what they have of their own, without the files that they map, as git does
// packs. Those are the page cache's, which any other program's need takes back.
func (w *bench) sample(ctx context.Context) {
	for ctx.Err() == nil {
		for pid, line := range w.Processes() {
			program := filepath.Base(strings.Fields(line)[0])
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may have ended
			for field := range strings.Lines(string(text)) {
				if value, ok := strings.CutPrefix(field, "RssAnon:"); ok {
					n, _ := strconv.Atoi(strings.Fields(value)[0])
					if old, _ := w.most.LoadOrStore(program, n); old.(int) < n {
						w.most.Store(program, n)
					}
				}
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// guest runs a shell command in the VM.
func (w *bench) guest(script string) time.Duration {
	w.b.Helper()
	return w.took("vm", "exec", "--workdir", "/", "box", "--", "sh", "-ec", script)
}

// serve makes the host's repositories reachable in the guest as git://127.0.0.1:9418/.
func (w *bench) serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.b.Fatal(err)
	}
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	listener.Close()
	for _, cmd := range []*exec.Cmd{
		exec.Command("git", "daemon", "--listen=127.0.0.1", "--port="+port, "--export-all", "--reuseaddr", "--base-path="+filepath.Dir(w.repo)),
		exec.Command("ssh", "-F", statedir.Dir{Root: w.State}.SSHConfig(), "-N", "-o", "ExitOnForwardFailure=yes", "-R", "9418:127.0.0.1:"+port, "box.vm"),
	} {
		like := w.Command(context.Background())
		cmd.Env, cmd.Dir, cmd.SysProcAttr = like.Env, like.Dir, like.SysProcAttr
		cmd.SysProcAttr = withGroup(cmd.SysProcAttr)
		if cmd.Args[0] == "git" { // the clone's other end is none of banger's processes
			cmd.Env = append(cmd.Env, "BANGER_STATE_DIR=")
		}
		if err := cmd.Start(); err != nil {
			w.b.Fatal(err)
		}
		w.b.Cleanup(func() {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // "git daemon" is a program that starts another
			cmd.Wait()
		})
	}
	testenv.WaitFor(w.b, time.Minute, "the forward", func() bool {
		return w.Run("vm", "exec", "--workdir", "/", "box", "--", "git", "ls-remote", "-q", "git://127.0.0.1/"+filepath.Base(w.repo)).Status == 0
	})
}

// withGroup makes a process the first of a group of its own.
func withGroup(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	own := syscall.SysProcAttr{}
	if attr != nil {
		own = *attr
	}
	own.Setpgid = true
	return &own
}

// BenchmarkWorkspace measures the way in, work there, and the way back.
func BenchmarkWorkspace(b *testing.B) {
	w := newBench(b)
	w.serve()
	var prepare, clone []time.Duration
	for n := range runs() {
		in, beside := fmt.Sprintf("/root/in%d", n), fmt.Sprintf("/root/clone%d", n)
		clone = append(clone, w.guest(fmt.Sprintf("git clone -q --depth 10 git://127.0.0.1/%s %s", filepath.Base(w.repo), beside)))
		prepare = append(prepare, w.took("workspace", "prepare", "--guest-path", in, "box", w.repo))
		if n > 0 { // the first ones stay, to be worked on
			w.guest("rm -rf " + in + " " + beside)
		}
	}
	first, floor := report(b, "workspace prepare", prepare), report(b, "git clone --depth 10 in the guest", clone)
	b.ReportMetric(first/floor, "prepare/clone")
	w.again(first)
	w.work()
	w.back()
	w.most.Range(func(program, kib any) bool {
		if name := program.(string); name == "banger" || name == "bangerd" || name == "git" {
			b.Logf("most private memory of one %s: %.0f MB", name, float64(kib.(int))/1024)
			b.ReportMetric(float64(kib.(int))/1024, name+"-MB")
		}
		return true
	})
}

// again prepares once more after one commit of the host.
func (w *bench) again(first float64) {
	var second []time.Duration
	for n := range runs() {
		for i := range 3 {
			if err := os.WriteFile(filepath.Join(w.repo, testenv.Repo{}.Path(n*1000+i)), fmt.Appendf(nil, "/* %d */\n", n), 0o644); err != nil {
				w.b.Fatal(err)
			}
		}
		w.git(w.repo, "commit", "-qam", fmt.Sprintf("again %d", n))
		second = append(second, w.took("workspace", "prepare", "--guest-path", "/root/in0", "box", w.repo))
	}
	head := strings.TrimSpace(w.git(w.repo, "rev-parse", "HEAD"))
	w.guest("cd /root/in0 && test $(git rev-parse HEAD) = " + head + " && test -z \"$(git status --porcelain)\"")
	w.b.ReportMetric(report(w.b, "workspace prepare again, after one commit", second)/first, "again/prepare")
}

// build reads every source and writes an object for each, as a compiler does with the files.
const build = `rm -rf build && mkdir build && find src/00 -name "*.c" -type f | perl -ne '
	chomp; open my $in, "<", $_ or die; { local $/; $text = <$in> } s{.*/}{build/}; s/c$/o/;
	open my $out, ">", $_ or die; print $out unpack("%32C*", $text), substr($text, 0, 512); $n++; END { die "$n objects" unless $n > 4000 }'`

// work compares what a developer does in the prepared repository and in the clone.
func (w *bench) work() {
	status, compile := map[string][]time.Duration{}, map[string][]time.Duration{}
	for range 2*runs() + 1 {
		for _, dir := range []string{"/root/in0", "/root/clone0"} {
			status[dir] = append(status[dir], w.guest(fmt.Sprintf("cd %s && test -z \"$(git status --porcelain)\"", dir)))
			compile[dir] = append(compile[dir], w.guest("cd "+dir+" && "+build))
		}
	}
	own, plain := report(w.b, "git status in the prepared repository", status["/root/in0"]), report(w.b, "git status in the clone", status["/root/clone0"])
	w.b.ReportMetric(own/plain, "status/clone")
	own, plain = report(w.b, "a build in the prepared repository", compile["/root/in0"]), report(w.b, "a build in the clone", compile["/root/clone0"])
	w.b.ReportMetric(own/plain, "build/clone")
}

// back brings commits out of the stopped VM, beside a fetch of the same objects by git.
func (w *bench) back() {
	w.guest(`cd /root/in0 && git config user.name x && git config user.email x@example.com
for i in 1 2 3 4 5; do for f in src/*/*/*${i}0.c; do echo "/* $i */" >> $f; done; git commit -qam work$i; done
echo edited >> .gitignore; echo new > new`)
	w.Must("vm", "stop", "box")
	var pull, fetch []time.Duration
	for n := range runs() {
		pull = append(pull, w.took("workspace", "pull", "--guest-path", "/root/in0", "--branch", "back", "box"))
		id := strings.TrimSpace(w.git(w.repo, "rev-parse", "back"))
		if n == 0 {
			w.git(filepath.Dir(w.repo), "clone", "-q", "--bare", "--single-branch", "--branch", "back", "file://"+w.repo, "source.git")
			w.git(filepath.Dir(w.repo), "clone", "-q", "--bare", "--single-branch", "--branch", "main", "file://"+w.repo, "target.git")
		}
		begun := time.Now()
		w.git(filepath.Join(filepath.Dir(w.repo), "target.git"), "fetch", "-q", "../source.git", id+":refs/heads/back")
		fetch = append(fetch, time.Since(begun))
		w.git(filepath.Join(filepath.Dir(w.repo), "target.git"), "update-ref", "-d", "refs/heads/back")
		w.git(filepath.Join(filepath.Dir(w.repo), "target.git"), "-c", "gc.reflogExpire=now", "prune", "--expire=now")
		w.git(filepath.Join(filepath.Dir(w.repo), "target.git"), "repack", "-q", "-a", "-d")
		w.forget()
	}
	pulled, fetched := report(w.b, "workspace pull from the stopped VM", pull), report(w.b, "git fetch of its commits from a repository here", fetch)
	w.b.ReportMetric(pulled-fetched, "pull-beyond-fetch-s")
}

// forget takes what was pulled out of the repository again.
func (w *bench) forget() {
	for ref := range strings.FieldsSeq(w.git(w.repo, "for-each-ref", "--format=%(refname)", "refs/banger", "refs/heads/back")) {
		w.git(w.repo, "update-ref", "-d", ref)
	}
	w.git(w.repo, "-c", "gc.reflogExpire=now", "prune", "--expire=now")
	w.git(w.repo, "repack", "-q", "-a", "-d") // what came is in a pack, which only then goes
}
