package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/api"
	"banger/internal/machine"
)

func (w *world) mustCreateAged(name string, ttl, stopIdle time.Duration) banger.VM {
	w.t.Helper()
	vm, err := w.Create(w.t.Context(), api.CreateRequest{Name: name, Start: true, TTL: ttl, StopIdle: &stopIdle}, nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return vm
}

// names are those of all VMs, with their states when they don't run. All that is due has happened.
func (w *world) names() string {
	synctest.Wait()
	var names []string
	for _, vm := range w.list() {
		name := vm.Spec.Name
		if vm.State != banger.StateRunning {
			name += "=" + string(vm.State)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (w *world) wantNames(when, want string) {
	w.t.Helper()
	if got := w.names(); got != want {
		w.t.Errorf("%s: VMs %q, want %q", when, got, want)
	}
}

// rebootHost ends all processes. The wall clock is off afterwards.
func (w *world) rebootHost(off time.Duration) {
	w.shut()
	for id := range w.runs {
		w.killProcesses(id, true, true)
	}
	w.clock.reboot(off)
	w.open()
	w.settle()
}

const year = 365 * 24 * time.Hour

func TestTimeToLive(t *testing.T) {
	for _, tc := range []struct {
		name   string
		within func(w *world) // after half of two hours
		left   time.Duration  // until the end, after within
	}{
		{"nothing happens", func(*world) {}, time.Hour},
		{"it is stopped", func(w *world) { w.Stop(w.t.Context(), "old", 0, nil) }, time.Hour},
		{"the daemon restarts", (*world).restart, time.Hour},
		{"the daemon is down for a while", func(w *world) { w.shut(); time.Sleep(10 * time.Minute); w.open() }, 50 * time.Minute},
		{"the daemon is down at the end", func(w *world) { w.shut(); time.Sleep(59 * time.Minute); w.open() }, time.Minute},
		{"the wall clock jumps forward", func(w *world) { w.clock.setWall(10 * year) }, time.Hour},
		{"the wall clock jumps back", func(w *world) { w.clock.setWall(-10 * year) }, time.Hour},
		{"it jumps forward and back", func(w *world) { w.clock.setWall(year); time.Sleep(time.Minute); w.clock.setWall(0) }, 59 * time.Minute},
		{"it is ahead when the daemon restarts", func(w *world) { w.clock.setWall(year); w.restart(); w.clock.setWall(0) }, time.Hour},
		{"it is behind when the daemon restarts", func(w *world) { w.clock.setWall(-year); w.restart() }, time.Hour},
		{"the host is booted again", func(w *world) { w.rebootHost(0) }, time.Hour + secondLook},
		{"and is up when the time is", func(w *world) { w.shut(); time.Sleep(2 * time.Hour); w.rebootHost(0) }, secondLook},
		{"the clock is ahead after the boot", func(w *world) { w.rebootHost(year); time.Sleep(secondLook - time.Minute); w.clock.setWall(0) }, time.Hour + time.Minute},
		{"the clock is ahead, and the daemon restarts", func(w *world) { w.rebootHost(year); time.Sleep(9 * time.Minute); w.restart(); w.clock.setWall(0) }, time.Hour + time.Minute},
		{"the host sleeps for long", func(w *world) { time.Sleep(time.Minute); w.clock.sleep(8 * time.Hour) }, 59 * time.Minute},
		{"another age is set", func(w *world) { w.setTTL("old", 3*time.Hour) }, 3 * time.Hour},
		{"a shorter age is set", func(w *world) { w.setTTL("old", time.Minute) }, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				vm := w.mustCreateAged("old", 2*time.Hour, 0)
				w.mustCreate("forever", true)
				if want := time.Now().Add(2 * time.Hour); !vm.ExpiresAt.Equal(want) {
					t.Errorf("expires at %s, want %s", vm.ExpiresAt, want)
				}
				time.Sleep(time.Hour)
				tc.within(w)
				time.Sleep(tc.left - time.Second)
				if got := w.names(); !strings.Contains(got, "old") {
					t.Errorf("a second before the end: VMs %q", got)
				}
				time.Sleep(2 * time.Second)
				if got := w.names(); strings.Contains(got, "old") || !strings.Contains(got, "forever") {
					t.Errorf("a second after the end: VMs %q", got)
				}
				if wrong := w.broken(); len(wrong) > 0 {
					t.Error(wrong)
				}
			})
		})
	}
}

// A VM that did not boot is kept for an hour by the clock that nobody can set, or for its own time when that is shorter.
func TestFailedBootAges(t *testing.T) {
	for _, tc := range []struct {
		name   string
		ttl    time.Duration
		within func(w *world) // after twenty minutes
		left   time.Duration  // until the end, after within
	}{
		{"nothing happens", 0, func(*world) {}, 40 * time.Minute},
		{"its holder goes and the daemon restarts", 0, func(w *world) { w.exits(7); w.restart() }, 40 * time.Minute},
		{"the wall clock is ahead when the daemon restarts", 0, func(w *world) { w.clock.setWall(year); w.restart(); w.exits(7) }, 40 * time.Minute},
		{"the wall clock is behind when the daemon restarts", 0, func(w *world) { w.clock.setWall(-year); w.restart() }, 40 * time.Minute},
		{"the host sleeps", 0, func(w *world) { w.clock.sleep(30 * time.Minute); w.restart() }, 10 * time.Minute},
		{"a shorter time of its own", 30 * time.Minute, (*world).restart, 10 * time.Minute},
		{"a longer time of its own", 3 * time.Hour, (*world).restart, 40 * time.Minute},
		{"somebody gives it more", 0, func(w *world) { w.setTTL("mute", 2*time.Hour) }, 2 * time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.boot = banger.ExitNoBoot
				if _, err := w.Create(t.Context(), api.CreateRequest{Name: "mute", Start: true, Remove: true, TTL: tc.ttl}, w.holder(7), nil); err == nil {
					t.Fatal("it boots")
				}
				begun := w.get("mute").Exit.At
				time.Sleep(20*time.Minute - time.Since(begun))
				tc.within(w)
				time.Sleep(tc.left - time.Minute)
				w.wantNames("a minute before the end", "mute=error")
				time.Sleep(2 * time.Minute)
				w.wantNames("a minute after the end", "")
				if wrong := w.broken(); len(wrong) > 0 {
					t.Error(wrong)
				}
			})
		})
	}
}

func (w *world) setTTL(ref string, ttl time.Duration) {
	w.t.Helper()
	_, err := w.Store.Update(w.t.Context(), w.get(ref).ID, func(vm *banger.VM) error {
		w.setAge(vm, ttl)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.lookAgain()
}

// An end that is put off at the last moment does not come.
func TestTimeToLiveIsPutOff(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreateAged("old", time.Hour, 0)
	w.setTTL("old", 2*time.Hour)
	w.expire(t.Context(), vm)
	if now := w.get("old"); now.State != banger.StateRunning {
		t.Fatalf("%+v", now)
	}
	w.expire(t.Context(), w.get("old"))
	w.wantNothing()
}

// A clock that was behind when the host came up is set some time; nobody tells the daemon.
func TestTimeToLiveWithAClockThatIsSetLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustCreateAged("old", 2*time.Hour, 0)
		w.rebootHost(-50 * year)
		time.Sleep(100 * time.Hour)
		w.wantNames("by a clock that is behind", "old=stopped")
		w.clock.setWall(0)
		time.Sleep(lookEvery + secondLook + time.Second)
		w.wantNames("by the clock that has been set", "")
	})
}

// Whatever happens to the wall clock and to daemons within a boot of the host, a VM ends when its time is up.
func TestTimeToLiveAgainstModel(t *testing.T) {
	for seed := range uint64(15) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 5))
			w := newWorld(t)
			ends := map[string]time.Time{}
			for i := range 1 + random.IntN(4) {
				ttl := time.Duration(1+random.IntN(int(10*time.Hour/time.Second))) * time.Second
				name := fmt.Sprintf("vm%d", i)
				w.mustCreateAged(name, ttl, 0)
				ends[name] = time.Now().Add(ttl)
			}
			for range 40 {
				switch random.IntN(4) {
				case 0:
					w.clock.setWall(time.Duration(random.Int64N(int64(2*year))) - year)
				case 1:
					w.restart()
				case 2:
					w.shut()
					time.Sleep(time.Duration(random.IntN(1800)) * time.Second)
					w.open()
				default:
					time.Sleep(time.Duration(random.IntN(3600)) * time.Second)
				}
				got := w.names()
				for name, end := range ends {
					left := time.Until(end)
					if lives := strings.Contains(got, name); lives != (left > 0) && left != 0 {
						t.Fatalf("seed %d: %s has %s left, VMs %q", seed, name, left, got)
					}
				}
			}
		})
	}
}

// Whatever fails at the end of a VM, the next try succeeds.
func TestTimeToLiveIsTriedAgain(t *testing.T) {
	for step := 0; ; step++ {
		reached := false
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.mustCreateAged("old", time.Hour, 0)
			time.Sleep(time.Hour - time.Second)
			synctest.Wait()
			w.mu.Lock()
			w.failStep = w.steps + step
			w.mu.Unlock()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			reached = w.faulted() != ""
			time.Sleep(retryEvery)
			w.wantNames(fmt.Sprintf("after step %d (%s) failed", step, w.faulted()), "")
			if wrong := w.broken(); len(wrong) > 0 && w.faulted() != "home: remove" { // which the next start of the daemon tries again
				t.Errorf("step %d (%s): %v", step, w.faulted(), wrong)
			}
		})
		if !reached {
			if step < 5 {
				t.Errorf("only %d steps", step)
			}
			return
		}
	}
}

func TestBadAges(t *testing.T) {
	w := newWorld(t)
	short := time.Second
	for _, req := range []api.CreateRequest{{TTL: -1}, {StopIdle: &short}} {
		if _, err := w.Create(t.Context(), req, nil, nil); banger.KindName(err) != "invalid" {
			t.Errorf("Create(%+v) = %v, want ErrInvalid", req, err)
		}
	}
	w.wantNothing()
}

func (w *world) wantNothing() {
	w.t.Helper()
	if wrong := w.broken(); len(wrong) > 0 || len(w.list()) > 0 {
		w.t.Errorf("left: %v, %+v", wrong, w.list())
	}
}

// The daemon sleeps when no VM has an age, looks once an hour when one has an end, and once a minute at most.
func TestLooks(t *testing.T) {
	looks := func(w *world, d time.Duration) int {
		synctest.Wait()
		w.mu.Lock()
		before := w.lists
		w.mu.Unlock()
		time.Sleep(d)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.lists - before
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustCreate("forever", true)
		if n := looks(w, 10*year); n != 0 {
			t.Errorf("%d looks when no VM has an age", n)
		}
		w.mustCreateAged("old", 1000*time.Hour, 0)
		if n := looks(w, 999*time.Hour); n > 999 {
			t.Errorf("%d looks in 999 hours before the end", n)
		}
		if n := looks(w, 2*time.Hour); n < 1 || n > 3 { // one sees that it is gone
			t.Errorf("%d looks for one end", n)
		}
		for i := range 5 {
			w.mustCreateAged(fmt.Sprintf("idle%d", i), 0, 100*time.Hour)
		}
		if n := looks(w, 10*time.Hour); n != 600 {
			t.Errorf("%d looks in 600 minutes", n)
		}
		asked := 0
		w.measure = func(banger.VMID) machine.Stats { asked++; return machine.Stats{} }
		for range 100 {
			w.lookAgain()
			synctest.Wait()
		}
		if asked > 5 {
			t.Errorf("supervisors are asked %d times at once", asked)
		}
		for i := range 5 {
			w.Stop(t.Context(), fmt.Sprintf("idle%d", i), 0, nil)
		}
		if n := looks(w, 10*time.Hour); n > 1 {
			t.Errorf("%d looks when no VM runs that stops when idle", n)
		}
	})
}

func TestStopIdle(t *testing.T) {
	const policy = 30 * time.Minute
	type guest struct {
		share   float64 // of a processor
		streams machine.Streams
		net     banger.NetTraffic // up to now
		silent  bool              // its supervisor tells nothing
	}
	busy := guest{share: 0.06}
	for _, tc := range []struct {
		name  string
		guest func(elapsed time.Duration) guest
		lives time.Duration // how long it runs; 0: it is never stopped
	}{
		{"idle", func(time.Duration) guest { return guest{share: 0.04} }, policy},
		{"works", func(time.Duration) guest { return busy }, 0},
		{"works for two hours", func(at time.Duration) guest {
			if at < 2*time.Hour {
				return busy
			}
			return guest{}
		}, 2*time.Hour + policy},
		{"works for a minute in twenty", func(at time.Duration) guest {
			if at%(20*time.Minute) < time.Minute {
				return busy
			}
			return guest{}
		}, 0},
		{"a shell is open", func(time.Duration) guest { return guest{streams: machine.Streams{Open: 1, Begun: 1}} }, 0},
		{"a short command every 25 minutes", func(at time.Duration) guest {
			return guest{streams: machine.Streams{Begun: int(at / (25 * time.Minute))}}
		}, 0},
		{"a short command every 45 minutes", func(at time.Duration) guest {
			return guest{streams: machine.Streams{Begun: int(at / (45 * time.Minute))}}
		}, policy},
		{"downloads", func(at time.Duration) guest {
			return guest{net: banger.NetTraffic{ReceivedBytes: int64(at.Minutes() * (idleBytes + 1))}}
		}, 0},
		{"sends and receives", func(at time.Duration) guest {
			n := int64(at.Minutes() * (idleBytes/2 + 1))
			return guest{net: banger.NetTraffic{SentBytes: n, ReceivedBytes: n}}
		}, 0},
		{"keeps a connection alive", func(at time.Duration) guest {
			n := int64(at.Minutes() * (idleBytes / 2))
			return guest{net: banger.NetTraffic{SentBytes: n, ReceivedBytes: n}}
		}, policy},
		{"serves a page every 25 minutes", func(at time.Duration) guest {
			return guest{net: banger.NetTraffic{SentBytes: int64(at/(25*time.Minute)) << 20}}
		}, 0},
		{"downloads for two hours", func(at time.Duration) guest {
			return guest{net: banger.NetTraffic{ReceivedBytes: int64(min(at, 2*time.Hour).Minutes()) << 20}}
		}, 2*time.Hour + policy},
		{"its supervisor is replaced every 25 minutes", func(at time.Duration) guest {
			return guest{net: banger.NetTraffic{SentBytes: int64(at % (25 * time.Minute) / time.Minute)}}
		}, 0},
		{"the supervisor does not answer", func(time.Duration) guest { return guest{silent: true} }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var cpu time.Duration
				begun, last := time.Now(), time.Now()
				w.measure = func(banger.VMID) machine.Stats {
					g := tc.guest(last.Sub(begun))
					cpu += time.Duration(float64(time.Since(last)) * g.share)
					last = time.Now()
					if g.silent {
						return machine.Stats{}
					}
					return machine.Stats{VMM: &banger.ProcessUsage{CPU: cpu, Clock: time.Since(begun)}, Streams: g.streams, Net: g.net}
				}
				w.mustCreate("forever", true)
				w.mustCreateAged("box", 0, policy)
				if tc.lives == 0 {
					time.Sleep(100 * time.Hour)
					w.wantNames("in use", "box forever")
					return
				}
				time.Sleep(tc.lives - time.Second)
				w.wantNames("before its time", "box forever")
				time.Sleep(2*idleLook + 2*time.Second)
				w.wantNames("after its time", "box=stopped forever")
				vm := w.get("box")
				if vm.Exit.Cause != banger.ExitPowerOff || vm.Exit.Detail != "nobody used it for 30m" {
					t.Errorf("exit %+v", vm.Exit)
				}
				if wrong := w.broken(); len(wrong) > 0 {
					t.Error(wrong)
				}
				if _, err := w.Start(t.Context(), "box", nil); err != nil {
					t.Fatal(err)
				}
				time.Sleep(policy - time.Second)
				w.wantNames("started again", "box forever")
			})
		})
	}
}

// Each run has its own time.
func TestStopIdleAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		begun := time.Now()
		w.measure = func(banger.VMID) machine.Stats {
			return machine.Stats{VMM: &banger.ProcessUsage{Clock: time.Since(begun)}}
		}
		w.mustCreateAged("box", 0, 30*time.Minute)
		w.mustCreateAged("webbox", 0, 100*time.Hour)
		time.Sleep(29*time.Minute + time.Second)
		if _, err := w.Stop(t.Context(), "box", 0, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Start(t.Context(), "box", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		w.wantNames("30 minutes after the second start", "box webbox")
		time.Sleep(2 * time.Minute)
		w.wantNames("at last", "box=stopped webbox")
	})
}

// What the daemon that has ended saw does not count, nor what it could not see.
func TestStopIdleBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		begun := time.Now()
		w.measure = func(banger.VMID) machine.Stats {
			return machine.Stats{VMM: &banger.ProcessUsage{Clock: time.Since(begun)}}
		}
		w.mustCreateAged("box", 0, 30*time.Minute)
		time.Sleep(29 * time.Minute)
		w.restart()
		time.Sleep(29 * time.Minute)
		w.wantNames("after the restart", "box")
		w.clock.setWall(10 * year)
		time.Sleep(time.Second)
		w.wantNames("after a jump of the clock", "box")
		time.Sleep(2 * time.Minute)
		w.wantNames("at last", "box=stopped")
	})
}

// An idle VM that is being stopped when the daemon dies is stopped by the next one, for the same reason.
func TestStopIdleIsCutOff(t *testing.T) {
	for step := 0; ; step++ {
		w := newWorld(t)
		vm := w.mustCreateAged("box", 0, time.Hour)
		w.mu.Lock()
		w.crashAt = w.steps + step
		w.mu.Unlock()
		err := w.do(func() error {
			w.stopIdle(t.Context(), vm, machine.Stats{})
			return nil
		})
		if err == nil {
			if step < 4 {
				t.Errorf("only %d steps", step)
			}
			return
		}
		w.mu.Lock()
		w.crashAt = -1
		w.mu.Unlock()
		w.open()
		w.settle()
		now := w.get("box")
		if now.State != banger.StateRunning && (now.State != banger.StateStopped || now.Exit.Detail != "nobody used it for 1h" || now.StopReason != "") {
			t.Errorf("crash at step %d (%s): %+v, %+v", step, w.faulted(), now, now.Exit)
		}
		if wrong := w.broken(); len(wrong) > 0 {
			t.Errorf("crash at step %d (%s): %v", step, w.faulted(), wrong)
		}
	}
}

// A command or a download that begins while the VM is about to be stopped is not cut off.
func TestStopIdleLooksOnceMore(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreateAged("box", 0, time.Hour)
	last := machine.Stats{VMM: &banger.ProcessUsage{}, Streams: machine.Streams{Begun: 3}}
	uses := func(stats machine.Stats) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.runs[vm.ID].use = stats
	}
	for _, now := range []machine.Streams{{Open: 1, Begun: 4}, {Begun: 4}} {
		uses(machine.Stats{VMM: &banger.ProcessUsage{}, Streams: now})
		if w.stopIdle(t.Context(), vm, last); w.get("box").State != banger.StateRunning {
			t.Fatalf("stopped with %+v", now)
		}
	}
	busy := last
	busy.Net.ReceivedBytes = idleBytes + 1
	uses(busy)
	if w.stopIdle(t.Context(), vm, last); w.get("box").State != banger.StateRunning {
		t.Fatal("stopped while it downloads")
	}
	uses(last)
	changed := vm
	changed.Spec.StopIdle *= 2
	if w.stopIdle(t.Context(), changed, last); w.get("box").State != banger.StateRunning {
		t.Fatal("stopped by a policy that it has no more")
	}
	if w.stopIdle(t.Context(), vm, last); w.get("box").State != banger.StateStopped {
		t.Errorf("not stopped: %+v", w.get("box"))
	}
}
