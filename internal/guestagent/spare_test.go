package guestagent

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// The processor to spare lasts as long as files are written.
func TestSpare(t *testing.T) {
	if runtime.NumCPU() > 1 {
		out, err := exec.Command("taskset", "--cpu-list", "0", os.Args[0], "-test.run=^TestSpare$", "-test.v").CombinedOutput()
		if err != nil {
			t.Errorf("on one CPU: %v\n%s", err, out)
		}
		return
	}
	var s spare
	var got [5]int
	look := func(i int) { got[i] = runtime.GOMAXPROCS(0) }
	look(0)
	first := s.take()
	look(1)
	second := s.take()
	first()
	look(2)
	second()
	look(3)
	s.take()()
	look(4)
	if want := [5]int{1, 2, 2, 1, 1}; got != want {
		t.Errorf("processors %v, want %v", got, want)
	}
}
