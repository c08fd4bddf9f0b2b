package machine

import (
	"errors"
	"syscall"
	"testing"

	"banger"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]syscall.Signal{"KILL": 9, "SIGKILL": 9, "term": 15, "sigterm": 15, "9": 9, "64": 64, "USR1": 10,
		"": 0, "0": 0, "65": 0, "-9": 0, "SIG": 0, "SIGSIGKILL": 0, "NOSUCH": 0, "1e1": 0} {
		got, err := ParseSignal(text)
		if got != want || (err == nil) != (want != 0) || err != nil && !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("ParseSignal(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
}
