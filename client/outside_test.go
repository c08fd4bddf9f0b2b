package client_test

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/testenv"
)

// A module outside this one can name everything that it needs. TestGoClient of test/smoke runs what is built here.
func TestOutsideModule(t *testing.T) {
	program := filepath.Join(t.TempDir(), "outside")
	testenv.BuildOutside(t, program)
	if info, err := os.Stat(program); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("%s: %v, %v", program, info, err)
	}
}
