package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// makefile is the Makefile among programs that only note that they were called, and how make is run there.
func makefile(t *testing.T) (phony []string, run func(args ...string) (out string), called func() string) {
	t.Helper()
	testenv.RequireTool(t, "make")
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	files := map[string]string{"Makefile": string(text)}
	for _, name := range []string{"scripts/setup", "scripts/run", "scripts/dist", "scripts/coverage", "bin/go", "bin/install"} {
		files[name] = "#!/bin/sh\necho \"${0##*/} $1\" >>" + calls + "\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run = func(args ...string) string {
		t.Helper()
		cmd := exec.Command("make", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "MAKEFLAGS=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("make %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	called = func() string {
		t.Helper()
		text, err := os.ReadFile(calls)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(text)
	}
	_, list, _ := strings.Cut(string(text), ".PHONY:")
	list, _, _ = strings.Cut(list, "\n")
	return strings.Fields(list), run, called
}

func TestMakeOnlyPrints(t *testing.T) {
	targets, run, called := makefile(t)
	if !slices.Contains(targets, "run") {
		t.Fatalf("targets: %q", targets)
	}
	for _, target := range targets {
		run("-n", target)
	}
	if got := called(); got != "" {
		t.Errorf("make -n called:\n%s", got)
	}
	out := run("-n", "run")
	for _, text := range []string{"scripts/setup run", "go build", "scripts/run"} {
		before, after, ok := strings.Cut(out, text)
		if !ok {
			t.Fatalf("make -n run does not print %q after what is cut off:\n%s", text, before)
		}
		out = after
	}
}

// What is missing is set up before anything is built, and built before it runs; also when make may do several things at a time.
func TestMakeRun(t *testing.T) {
	_, run, called := makefile(t)
	out := run("-j4", "run", "CMD=uname -a")
	if got, want := called(), "setup run\n"+strings.Repeat("go build\n", 4)+"run \n"; got != want {
		t.Errorf("make run called:\n%s\nwant:\n%s\nit wrote: %s", got, want, out)
	}
	if strings.Contains(out, "warning:") {
		t.Errorf("make run wrote: %s", out)
	}
}
