package testenv

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Programs are the names of the project's binaries.
var Programs = []string{"banger", "bangerd", "banger-machine", "banger-guest"}

// Binaries is a directory with the four built programs, readable by everyone. They are built once per test process with
// the flags of the Makefile.
func Binaries(t testing.TB) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var build = sync.OnceValues(func() (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	// Each tree of the sources has its own: tests of two at once must not take each other's programs.
	tree := sha256.Sum256([]byte(root))
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("banger-test-bin-%d-%x", os.Getuid(), tree[:4]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, name := range Programs {
		if err := Build(root, filepath.Join(dir, name), "./cmd/"+name, ""); err != nil {
			return "", err
		}
	}
	return dir, nil
})

// Build compiles one program statically and without symbols. A version other than "" is stamped into it.
func Build(root, out, pkg, version string) error {
	flags := "-s -w"
	if version != "" {
		flags += " -X main.version=" + version
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", flags, "-o", out, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}
