package testenv

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BuildOutside builds client/testdata/outside as out, in a module of its own that knows this one by its directory only.
func BuildOutside(t testing.TB, out string) {
	t.Helper()
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source, err := os.ReadFile(filepath.Join(root, "client/testdata/outside/main.go"))
	sums, sumsErr := os.ReadFile(filepath.Join(root, "go.sum"))
	module := "module outside.example/tool\n\ngo 1.26\n\nrequire banger v0.0.0\n\nreplace banger => " + root + "\n"
	if err := errors.Join(err, sumsErr, os.WriteFile(filepath.Join(dir, "main.go"), source, 0o644), os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o644),
		os.WriteFile(filepath.Join(dir, "go.mod"), []byte(module), 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-mod=mod", "-o", out, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOPROXY=off", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build a program outside the module: %v\n%s", err, text)
	}
}
