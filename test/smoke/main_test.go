// Package smoke drives the built programs as a user does, with real guests: every promise that a user can see, by name.
package smoke

import (
	"testing"

	"banger/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.MaybeInternetMain()
	testenv.Main(m)
}
