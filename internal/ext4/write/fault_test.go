package write_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// childEnv makes this program write one image, the path of which it has, and tell the kind of error; lazyEnv, without fsync.
const (
	childEnv = "BANGER_TEST_WRITE"
	lazyEnv  = "BANGER_TEST_LAZY"
)

func TestMain(m *testing.M) {
	image := os.Getenv(childEnv)
	if image == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // strace counts the calls of each thread
	opts := options(64 << 20)
	opts.Sync, opts.Fit, opts.ReservedGDT = os.Getenv(lazyEnv) == "", true, 64
	_, err := write.CreateFile(context.Background(), image, opts, faulted())
	if err != nil {
		fmt.Println(banger.KindName(err), err)
		os.Exit(3)
	}
}

// faulted needs every kind of write: more than one buffer of data, an extent tree, an indexed directory, and blocks that are
// freed again.
func faulted() tree.Source {
	var names []tree.Entry
	for i := range 300 {
		names = append(names, file(fmt.Sprintf("many/with a name of some length %d", i), ""))
	}
	return tree.Concat(few(), tree.Of(file("two buffers", pattern(7<<20)), holes()[6], file("large", "small now")), tree.Of(names...))
}

// Each system call that changes the image fails once: the error says why, nothing is left, and nothing crashes.
func TestEveryWriteFails(t *testing.T) {
	strace := testenv.RequireTool(t, "strace")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		name, errno string
		kind        error
		least       int // how often it is made
	}{
		{"pwrite64", "EIO", nil, 5}, {"pwrite64", "ENOSPC", banger.ErrUnavailable, 5}, {"pwrite64", "EFBIG", banger.ErrUnavailable, 5}, {"pwrite64", "EDQUOT", banger.ErrUnavailable, 5},
		{"ftruncate", "EFBIG", banger.ErrUnavailable, 2}, {"ftruncate", "EIO", nil, 2}, {"fallocate", "EIO", nil, 1}, {"fsync", "EIO", nil, 2},
	} {
		t.Run(call.name+" "+call.errno, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			n := 1
			for ; ; n++ {
				cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call.name, "-e", fmt.Sprintf("inject=%s:error=%s:when=%d", call.name, call.errno, n), self)
				cmd.Env = append(os.Environ(), childEnv+"="+image)
				out, err := cmd.CombinedOutput()
				if err == nil {
					break
				}
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 3 {
					t.Fatalf("number %d: %v\n%s", n, err, out)
				}
				kind, _, _ := strings.Cut(string(out), " ")
				if banger.KindByName(kind) != call.kind || !strings.Contains(string(out), image) {
					t.Errorf("number %d: %s", n, out)
				}
				wantGone(t, image)
			}
			if n <= call.least {
				t.Errorf("%s is made %d times, want %d at least", call.name, n-1, call.least)
			}
			judge(t, image)
			testenv.SameLines(t, content(t, image), wantFaulted(t))
		})
	}
}

func TestNoSyncUnlessAsked(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.RequireTool(t, "strace"), "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync,fdatasync,sync,syncfs:error=EIO", self)
	cmd.Env = append(os.Environ(), childEnv+"="+filepath.Join(t.TempDir(), "image"), lazyEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func wantFaulted(t *testing.T) []string {
	t.Helper()
	list := slices.DeleteFunc(testenv.TreeLines(t, dated(tree.Concat(faulted(), tree.Of(dir("many"), dir("holes")))), true), func(line string) bool {
		return strings.HasPrefix(line, fmt.Sprintf("large 1 644 0:0 %d ", 2<<20))
	})
	return list
}
