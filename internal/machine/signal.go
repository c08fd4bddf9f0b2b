package machine

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// maxSignal is the last of Linux's signals (signal(7)).
const maxSignal = 64

// ParseSignal reads a signal's name, with or without SIG before it, or its number. Errors: ErrInvalid.
func ParseSignal(text string) (syscall.Signal, error) {
	name := strings.ToUpper(text)
	if sig := unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG")); sig != 0 {
		return sig, nil
	}
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= maxSignal {
		return syscall.Signal(n), nil
	}
	return 0, &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("signal %.40q: want a name such as TERM, or a number from 1 to %d", text, maxSignal),
		Hint: banger.DidYouMean(strings.TrimPrefix(name, "SIG"), signalNames())}
}

// signalNames are those of Linux's standard signals, without SIG.
func signalNames() (names []string) {
	for n := syscall.Signal(1); n < 32; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return names
}
