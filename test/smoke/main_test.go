// Package smoke drives the built programs as a user does, with real guests: every promise that a user can see, by name.
package smoke

import (
	"fmt"
	"os"
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
