package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/api"
	"banger/internal/testenv"
)

// How many interleavings of each kind run; BANGER_MODEL_SEED runs one seed alone.
var interleavings = map[string]int{"test": 150, "smoke": 3000, "soak": 20000}

// What may happen in an interleaving.
const (
	modelUsers = 3
	modelActs  = 6    // of each user
	modelSteps = 1500 // more: somebody works for ever
)

// Users, guests, crashes and failures in an order that a seeded scheduler chooses, one effect at a time: whatever they do, the world's
// own checks hold at each effect, every request is answered, and records and host agree in the end.
func TestModel(t *testing.T) {
	if text := os.Getenv("BANGER_MODEL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		play(t, seed)
		return
	}
	count := interleavings[testenv.Tier()]
	first := rand.Uint64()
	for i := range count {
		play(t, first+uint64(i))
		if t.Failed() {
			return
		}
	}
	t.Logf("%d interleavings from seed %d on", count, first)
}

// play runs one interleaving.
func play(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{dice: rand.New(rand.NewPCG(seed, 1))}
		defer func() {
			if t.Failed() {
				t.Logf("BANGER_MODEL_SEED=%d; the last steps:\n%s", seed, m.lastSteps())
			}
		}()
		m.world = newWorldIn(t, quickDir(t))
		m.up = make(chan struct{})
		close(m.up)
		m.gone = make(chan struct{})
		m.gate = m.enter
		m.byHand.Store(true)
		m.run()
	})
}

// quickDir is a directory in memory where there is one: the database syncs at every step.
func quickDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "model")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// model is a world whose goroutines stop before and after each effect until the scheduler lets one go on.
type model struct {
	*world
	dice *rand.Rand

	lock   sync.Mutex
	gates  []*gate
	users  int
	up     chan struct{} // closed while a daemon serves
	gone   chan struct{} // closed when this daemon crashes
	quiet  bool          // nothing fails any more
	off    bool          // nobody is stopped any more
	waited int           // how long nobody could go on

	tracing sync.Mutex
	trace   []string
}

type gate struct {
	d    *daemon // nil: a user
	op   string
	open chan bool // gives whether the step fails
}

// enter waits for the scheduler.
func (m *model) enter(d *daemon, op string) bool {
	g := &gate{d: d, op: op, open: make(chan bool, 1)}
	m.lock.Lock()
	if m.off {
		close(g.open)
	}
	m.gates = append(m.gates, g)
	m.lock.Unlock()
	return <-g.open
}

func (m *model) note(format string, args ...any) {
	m.tracing.Lock()
	defer m.tracing.Unlock()
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

// lastSteps are what led here.
func (m *model) lastSteps() string {
	m.tracing.Lock()
	defer m.tracing.Unlock()
	return strings.Join(m.trace[max(0, len(m.trace)-80):], "\n")
}

// run is the scheduler.
func (m *model) run() {
	for user := range modelUsers {
		m.users++
		dice := rand.New(rand.NewPCG(m.dice.Uint64(), uint64(user)))
		go func() {
			for range modelActs {
				m.act(dice)
			}
			m.lock.Lock()
			defer m.lock.Unlock()
			m.users--
		}()
	}
	for step := 0; m.next(); step++ {
		if m.quiet = m.quiet || step > modelSteps/3; step > modelSteps {
			m.t.Errorf("no end after %d steps", step)
			break
		}
	}
	m.lock.Lock()
	m.off = true
	m.byHand.Store(false)
	for _, g := range m.gates {
		close(g.open)
	}
	m.lock.Unlock()
	if m.t.Failed() {
		return
	}
	m.agree(inTheEnd)
	m.restart()
	m.agree("after a restart")
	m.clear(0)
}

const inTheEnd = "in the end"

func (m *model) agree(when string) {
	wrong := m.broken()
	if when == inTheEnd { // what could not be removed then is removed by the next daemon
		wrong = slices.DeleteFunc(wrong, func(text string) bool { return strings.HasPrefix(text, "directory") })
	}
	if len(wrong) > 0 {
		m.t.Errorf("%s: %v", when, wrong)
	}
	names := map[string]bool{}
	for _, vm := range m.list() {
		if names[vm.Spec.Name] {
			m.t.Errorf("%s: two VMs are called %s", when, vm.Spec.Name)
		}
		names[vm.Spec.Name] = true
	}
}

// next lets something happen and tells whether there was anything.
func (m *model) next() bool {
	time.Sleep(time.Millisecond) // until all wait, for the scheduler or for each other
	if m.t.Failed() {
		return false
	}
	if !m.quiet && m.dice.IntN(8) == 0 {
		m.disturb()
		return true
	}
	m.lock.Lock()
	if len(m.gates) == 0 {
		users, up := m.users, isClosed(m.up)
		m.lock.Unlock()
		return m.guestGoes() || m.passTime(users, up)
	}
	defer m.lock.Unlock()
	m.waited = 0
	i := m.dice.IntN(len(m.gates))
	g := m.gates[i]
	m.gates = slices.Delete(m.gates, i, i+1)
	fails := g.d != nil && !m.quiet && m.dice.IntN(40) == 0
	m.note("%s%s", g.op, map[bool]string{true: " FAILS"}[fails])
	g.open <- fails
	return true
}

// passTime lets clocks go on and tells whether anybody may still do something.
func (m *model) passTime(users int, up bool) bool {
	m.waited++
	if m.waited > 200 { // longer than any undo may take
		m.t.Errorf("%d users wait for ever", users)
		return false
	}
	time.Sleep(time.Second)
	return users > 0 || !up || m.waited < 10 // what is tried again pauses
}

// guestGoes has a guest do what it is to do, when no goroutine waits for the scheduler. It tells whether there was one.
func (m *model) guestGoes() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.ordered() {
		switch {
		case !r.vmm || !r.supervisor || isClosed(r.ended):
		case !isClosed(r.ready):
			m.note("guest %s gets ready", r.cfg.ID)
			close(r.ready)
			return true
		case r.asked:
			m.note("guest %s powers off at last", r.cfg.ID)
			m.end(r, banger.ExitPowerOff)
			return true
		}
	}
	return false
}

// ordered gives the runs in an order that is the same every time. w.mu is held.
func (m *model) ordered() (runs []*run) {
	for _, r := range m.runs {
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(a, b *run) int { return strings.Compare(a.cfg.Name, b.cfg.Name) })
	return runs
}

func isClosed(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// disturb is what happens beside the users' wishes.
func (m *model) disturb() {
	switch m.dice.IntN(8) {
	case 0:
		m.note("DAEMON CRASHES")
		m.crashNow()
		go m.reopen(nil)
		return
	case 1:
		if isClosed(m.up) {
			m.note("DAEMON ENDS")
			m.lock.Lock()
			m.up = make(chan struct{})
			m.lock.Unlock()
			m.mu.Lock()
			old := m.daemon
			m.mu.Unlock()
			go m.reopen(old)
			return
		}
	case 2:
		jump := time.Duration(m.dice.IntN(7200)-3600) * time.Second
		m.note("clock is off by %s from now on", jump)
		m.clock.setWall(jump)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	runs := m.ordered()
	if m.deaf = m.dice.IntN(4) == 0; len(runs) == 0 {
		return
	}
	r := runs[m.dice.IntN(len(runs))]
	switch act := m.dice.IntN(5); {
	case act == 0 && r.vmm && r.supervisor && !isClosed(r.ready):
		m.note("guest %s gets ready", r.cfg.ID)
		close(r.ready)
	case act == 1 && r.vmm && r.supervisor:
		cause := []banger.ExitCause{banger.ExitPowerOff, banger.ExitReboot, banger.ExitPanic, banger.ExitCrash, banger.ExitNoBoot}[m.dice.IntN(5)]
		m.note("guest %s ends: %s", r.cfg.ID, cause)
		m.end(r, cause)
	case act == 2 && r.supervisor:
		m.note("supervisor of %s is killed", r.cfg.ID)
		r.supervisor = false
		close(r.lost)
	case act == 3 && r.vmm && !r.supervisor:
		m.note("VMM of %s is killed", r.cfg.ID)
		r.vmm = false
	case act == 4 && r.supervisor && isClosed(r.ended):
		m.note("supervisor of %s ends", r.cfg.ID)
		r.supervisor = false
		close(r.lost)
	}
}

// crashNow freezes the daemon, or the one that is recovering.
func (m *model) crashNow() {
	m.crash()
	m.lock.Lock()
	defer m.lock.Unlock()
	if isClosed(m.up) {
		m.up = make(chan struct{})
	}
	close(m.gone)
	m.gone = make(chan struct{})
	m.gates = slices.DeleteFunc(m.gates, func(g *gate) bool {
		if g.d == nil {
			return false
		}
		close(g.open) // into the freezer
		return true
	})
}

// reopen starts daemons until one has recovered. It ends old first if that did not crash.
func (m *model) reopen(old *daemon) {
	if old != nil {
		old.manager.Close()
		if m.isDead(old) {
			return // it crashed meanwhile, and another reopens
		}
		m.crashNow() // requests that came after its end
	}
	for {
		manager := m.newDaemon()
		m.mu.Lock()
		d := m.daemon
		m.mu.Unlock()
		err := manager.Recover(context.Background())
		if m.isDead(d) {
			m.freeze()
		}
		if err == nil {
			m.lock.Lock()
			m.Manager = manager
			d.open.Store(true)
			close(m.up)
			m.lock.Unlock()
			return
		}
		m.note("RECOVERY FAILS: %v", err)
		m.crash()
	}
}

func (m *model) isDead(d *daemon) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return d.dead
}

// serving waits for a daemon.
func (m *model) serving() (*Manager, chan struct{}) {
	for {
		m.lock.Lock()
		up, manager, gone := m.up, m.Manager, m.gone
		m.lock.Unlock()
		if isClosed(up) {
			return manager, gone
		}
		select {
		case <-up:
		case <-m.over:
			runtime.Goexit()
		}
	}
}

// act is one request of a user, who may lose patience.
func (m *model) act(dice *rand.Rand) {
	m.enter(nil, "user")
	manager, gone := m.serving()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if dice.IntN(5) == 0 {
		go func() {
			m.enter(nil, "user loses patience")
			cancel()
		}()
	}
	done := make(chan error, 1)
	name, request := fmt.Sprintf("vm-%d", dice.IntN(2)), m.request(dice)
	go func() { done <- request(ctx, manager, name) }()
	select {
	case err := <-done:
		m.note("answer about %s: %v", name, err)
		for _, kind := range []error{nil, errPlanned, banger.ErrConflict, banger.ErrNotFound, banger.ErrInterrupted, banger.ErrUnavailable, context.Canceled,
			banger.ErrCorrupt} { // the start of a VM whose creation could not be undone
			if errors.Is(err, kind) {
				return
			}
		}
		m.t.Errorf("unexpected: %v", err)
	case <-gone:
	}
}

// request chooses what is asked for. A request that succeeds has done what it says.
func (m *model) request(dice *rand.Rand) func(ctx context.Context, d *Manager, name string) error {
	want := func(what string, states ...banger.VMState) func(banger.VM, error) error {
		return func(vm banger.VM, err error) error {
			if err == nil && !slices.Contains(states, vm.State) {
				m.t.Errorf("%s gave a VM that is %s", what, vm.State)
			}
			return err
		}
	}
	said := func(what string) { m.note("user asks: %s", what) }
	start, force, other := dice.IntN(2) == 0, dice.IntN(2) == 0, fmt.Sprintf("vm-%d", dice.IntN(3))
	vcpu, grown := 1+dice.IntN(4), int64(8+dice.IntN(4))<<30
	switch dice.IntN(11) {
	case 0, 1:
		return func(ctx context.Context, d *Manager, name string) error {
			said("create " + name)
			state := map[bool]banger.VMState{true: banger.StateRunning, false: banger.StateStopped}[start]
			return want("create", state)(d.Create(ctx, api.CreateRequest{Name: name, Start: start}, nil, nil))
		}
	case 2:
		pid := dice.IntN(1 << 30)
		return func(ctx context.Context, d *Manager, name string) error {
			holder := m.holder(pid)
			defer m.exits(pid)
			said("create " + name)
			return want("create", banger.StateRunning)(d.Create(ctx, api.CreateRequest{Name: name, Start: true, Remove: true}, holder, nil))
		}
	case 3:
		return func(ctx context.Context, d *Manager, name string) error {
			said("start " + name)
			return want("start", banger.StateRunning)(d.Start(ctx, name, api.StartRequest{}, nil))
		}
	case 4:
		return func(ctx context.Context, d *Manager, name string) error {
			said("stop " + name)
			return want("stop", banger.StateStopped)(d.Stop(ctx, name, 0, nil))
		}
	case 5:
		return func(ctx context.Context, d *Manager, name string) error {
			said("restart " + name)
			return want("restart", banger.StateRunning)(d.Restart(ctx, name, api.RestartRequest{}, nil))
		}
	case 6:
		return func(ctx context.Context, d *Manager, name string) error {
			said("kill " + name)
			return want("kill", banger.StateStopped)(d.Kill(ctx, name, "KILL", nil))
		}
	case 7:
		return func(ctx context.Context, d *Manager, name string) error {
			said("rename " + name + " to " + other)
			vm, err := d.Rename(ctx, name, other, nil)
			if err == nil && vm.Spec.Name != other {
				m.t.Errorf("rename to %s gave %s", other, vm.Spec.Name)
			}
			return err
		}
	case 8:
		return func(ctx context.Context, d *Manager, name string) error {
			said("set " + name)
			result, err := d.Set(ctx, name, banger.SpecChange{VCPU: &vcpu, DiskBytes: &grown}, false)
			if err == nil && (result.VM.Spec.VCPU != vcpu || result.VM.Spec.DiskBytes != grown) && result.VM.Pending == nil {
				m.t.Errorf("set gave %+v and nothing for the next start", result.VM.Spec)
			}
			return err
		}
	default:
		return func(ctx context.Context, d *Manager, name string) error { return m.delete(ctx, d, name, force) }
	}
}

func (m *model) delete(ctx context.Context, d *Manager, name string, force bool) error {
	m.note("user asks: delete %s, force %v", name, force)
	vm, err := d.Delete(ctx, name, force, nil)
	if err != nil {
		return err
	}
	rows := m.list()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lives(vm.ID) {
		m.t.Errorf("delete of %s gave success while its processes live", name)
	}
	if slices.ContainsFunc(rows, func(row banger.VM) bool { return row.ID == vm.ID }) {
		m.t.Errorf("delete of %s left its record", name)
	}
	return nil
}
