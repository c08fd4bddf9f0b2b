package smoke

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/testenv"
)

// mostMemory is the most of the host's memory that a process has had, in MiB.
func mostMemory(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib >> 10
		}
	}
	t.Fatalf("no VmHWM in %s", text)
	return 0
}

// Whatever a program in the guest does to the network, a connection that is there works on meanwhile, new ones can be made afterwards, and the
// host's memory is bounded.
func TestNetworkUnderAttack(t *testing.T) { // alone: what gets no processor stands still, too
	testenv.RequireTier(t, "smoke")
	w := testenv.NewOnlineWorld(t)
	w.Must("vm", "run", "--name", "box", "--memory", "512M", "--", "true")
	pid := showVM(w, "box").PIDs["banger-machine"]
	wantStatus(t, w.RunInput(guestProgram(t, "attack"), "vm", "exec", "box", "--", "sh", "-c", "cat >/root/attack; chmod +x /root/attack"), 0)
	attack := func(args ...string) []string {
		return append([]string{"vm", "exec", "box", "--", "/root/attack"}, args...)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	worker := w.Command(ctx, attack("work", testenv.OriginAddr, fmt.Sprint(testenv.PortEcho))...)
	var trouble bytes.Buffer
	worker.Stderr = &trouble
	end, err := worker.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := worker.StdoutPipe()
	if err == nil {
		err = worker.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var worked atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			worked.Add(1)
		}
	}()
	works := func(what string) {
		t.Helper()
		until := worked.Load() + 10
		testenv.WaitFor(t, 2*time.Minute, what+": the connection that was there to work on", func() bool { return worked.Load() >= until })
	}
	works("at first")

	seed := rand.Uint64()
	for _, a := range []struct {
		what string
		args []string
		hold bool // it stays as it is until its input ends
	}{
		{"10,000 connections that are left half open", attack("halfopen", testenv.OtherAddr, fmt.Sprint(testenv.PortEcho), "10000"), false},
		{fmt.Sprint("packets that are none, seed ", seed), attack("frames", testenv.OriginAddr, "20000", fmt.Sprint(seed)), false},
		{"50 connections whose data nobody in the guest reads", attack("unread", testenv.OriginAddr, fmt.Sprint(testenv.PortFlood), "50"), true},
		{"50 connections to a server that reads nothing", attack("unread", testenv.OriginAddr, fmt.Sprint(testenv.PortStuck), "50"), true},
	} {
		before := worked.Load()
		cmd := w.Command(ctx, a.args...)
		in, inErr := cmd.StdinPipe()
		said, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil || inErr != nil {
			t.Fatal(err, inErr)
		}
		if first, err := bufio.NewReader(said).ReadString('\n'); err != nil {
			t.Fatalf("%s: it says %q, %v", a.what, first, err)
		}
		during := worked.Load() - before
		if !a.hold {
			cmd.Wait()
		}
		if during == 0 {
			t.Errorf("%s: the connection that was there stood still", a.what)
		}
		works(a.what)
		wants(t, w, "box", getFrom(testenv.OriginAddr), "x at "+testenv.OriginAddr)
		t.Logf("%s: %d pieces meanwhile, banger-machine has had %d MiB at most", a.what, during, mostMemory(t, pid))
		in.Close()
		if a.hold {
			cmd.Wait()
		}
	}
	if most := mostMemory(t, pid); most > 400 {
		t.Errorf("banger-machine has had %d MiB, want 400 at most", most)
	}
	end.Close()
	<-ended
	if err := worker.Wait(); err != nil {
		t.Errorf("the connection that was there: %v\n%s", err, trouble.String())
	}
	if now := showVM(w, "box").PIDs["banger-machine"]; now != pid {
		t.Errorf("banger-machine was %d, is %d", pid, now)
	}
}
