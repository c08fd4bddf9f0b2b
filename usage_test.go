package banger

import (
	"testing"
	"time"
)

func TestShare(t *testing.T) {
	at := func(cpu, clock time.Duration) ProcessUsage { return ProcessUsage{CPU: cpu, Clock: clock} }
	for _, tc := range []struct {
		name          string
		before, after ProcessUsage
		want          float64
	}{
		{"half", at(time.Second, 10*time.Second), at(2*time.Second, 12*time.Second), 0.5},
		{"two processors", at(0, 0), at(4*time.Second, 2*time.Second), 2},
		{"idle", at(time.Second, 0), at(time.Second, time.Second), 0},
		{"the same reading", at(time.Second, time.Second), at(time.Second, time.Second), 0},
		{"another process", at(time.Minute, time.Second), at(time.Second, 2*time.Second), 0},
	} {
		if got := tc.after.Share(tc.before); got != tc.want {
			t.Errorf("%s: Share = %v, want %v", tc.name, got, tc.want)
		}
	}
}
