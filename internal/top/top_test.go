package top

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"banger"
	"banger/api"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func vm(n int, name string, state banger.VMState) banger.VM {
	return banger.VM{ID: banger.VMID(fmt.Sprintf("%012x", n)), State: state, CreatedAt: start.Add(-time.Duration(n) * time.Hour),
		Spec: banger.VMSpec{Name: name, Image: "alpine", MemoryMiB: 1024, DiskBytes: 8 << 30}}
}

// usage is of a VM that has used so much at a moment.
func usage(vm banger.VM, at, cpu time.Duration, received int64) api.VMStats {
	return api.VMStats{ID: vm.ID, Name: vm.Spec.Name, State: vm.State, VMM: &banger.ProcessUsage{CPU: cpu, ResidentBytes: 300 << 20, Clock: at},
		Net: &banger.NetTraffic{ReceivedBytes: received}, DiskBytes: 8 << 30, DiskAllocatedBytes: 5 << 20}
}

// table is a model of three VMs, two of which run, after two looks.
func table(t *testing.T) *model {
	t.Helper()
	did := func(string) func(context.Context, banger.VM) error {
		return func(context.Context, banger.VM) error { return nil }
	}
	m := newModel(t.Context(), Config{Interval: time.Second, Stop: did("stop"), Start: did("start"), Color: true,
		Logs: func(context.Context, banger.VMID) (string, error) {
			return strings.Repeat("line\n", 100) + "end\n", nil
		}})
	m.now = func() time.Time { return start }
	vms := []banger.VM{vm(1, "web", banger.StateRunning), vm(2, "db", banger.StateRunning), vm(3, "old", banger.StateStopped)}
	for i := range time.Duration(2) {
		m.Update(loadedMsg{vms: vms, stats: api.Stats{At: start.Add(i * time.Second), VMs: []api.VMStats{
			usage(vms[0], i*time.Second, i*250*time.Millisecond, int64(i)*2048), usage(vms[1], i*time.Second, i*1500*time.Millisecond, 0)}}})
	}
	m.Update(tea.WindowSizeMsg{Width: 100, Height: 12})
	return m
}

// press has keys pressed and does what comes of them.
func press(m *model, keys ...string) {
	for _, key := range keys {
		cmd := m.key(key, map[bool]string{true: key}[len(key) == 1])
		if cmd != nil {
			if msg := cmd(); msg != nil {
				m.Update(msg)
			}
		}
	}
}

func names(m *model) (list []string) {
	for _, r := range m.rows() {
		list = append(list, r.vm.Spec.Name)
	}
	return list
}

func shown(m *model) string { return ansi.Strip(m.View().Content) }

func wantShown(t *testing.T, what string, m *model, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if text, not := strings.CutPrefix(text, "!"); strings.Contains(shown(m), text) == not {
			t.Errorf("%s: %q: the screen shows\n%s", what, text, shown(m))
		}
	}
}

func TestTable(t *testing.T) {
	m := table(t)
	m.Update(portsMsg{"000000000001": {80, 443, 8080, 9000}})
	wantShown(t, "table", m, "3 VMs, 2 running  cpu 175%  memory 600M", "web    running   25.0%  300M/1G  5M/8G  2K/0  80,443,+2   1h", "db     running  150.0%", "old    stopped")
	m.Update(loadedMsg{err: errors.New("it is\ngone")})
	wantShown(t, "no daemon", m, "no answer, trying again: it is gone", "web    running")
}

func TestSorting(t *testing.T) {
	m := table(t)
	for _, tc := range []struct{ keys, want string }{
		{"", "db old web"}, {"r", "web old db"}, {">", "web db old"}, {">", "db web old"}, {"r", "old web db"}, {"<", "db web old"}, {"<", "db old web"}, {"<", "old db web"},
	} {
		if tc.keys != "" {
			press(m, tc.keys)
		}
		if got := names(m); len(got) != 3 || tc.want != strings.Join(got, " ") && columns[m.order.column].name != "state" {
			t.Errorf("after %q by %s: %v, want %s", tc.keys, columns[m.order.column].name, got, tc.want)
		}
	}
}

// The chosen VM stays chosen whatever happens around it.
func TestChosenVM(t *testing.T) {
	m := table(t)
	press(m, "down", "down")
	chosen := func() string { rows := m.rows(); return rows[m.selected(rows)].vm.Spec.Name }
	if chosen() != "web" {
		t.Fatalf("chosen: %s", chosen())
	}
	press(m, "r", ">", ">")
	if chosen() != "web" {
		t.Errorf("after sorting: %s", chosen())
	}
	many := []banger.VM{vm(1, "web", banger.StateStopped)}
	for i := range 50 {
		many = append(many, vm(i+10, fmt.Sprintf("vm%02d", i), banger.StateStopped))
	}
	m.Update(loadedMsg{vms: many})
	if chosen() != "web" {
		t.Errorf("among many: %s", chosen())
	}
	wantShown(t, "among many", m, "web ")
	m.Update(loadedMsg{vms: many[1:]})
	if at := m.selected(m.rows()); at < 0 {
		t.Error("when it is gone none is chosen")
	}
	m.Update(loadedMsg{})
	press(m, "s", "x", "u", "l", "down")
	wantShown(t, "no VM", m, "no VMs yet")
}

func TestFilter(t *testing.T) {
	m := table(t)
	press(m, "/", "D", "x", "backspace")
	if got := names(m); !slices.Equal(got, []string{"db", "old"}) {
		t.Errorf("filter d: %v", got)
	}
	press(m, "enter", "x")
	wantShown(t, "a key after Enter", m, "stop db? y or n")
	press(m, "n", "esc")
	if got := names(m); len(got) != 3 {
		t.Errorf("no filter: %v", got)
	}
	press(m, "/", "q", "?")
	wantShown(t, "no VM has it", m, "no VM is like that", "filter: q?")
}

func TestActions(t *testing.T) {
	m := table(t)
	var did []string
	record := func(what string, err error) func(context.Context, banger.VM) error {
		return func(_ context.Context, vm banger.VM) error { did = append(did, what+" "+vm.Spec.Name); return err }
	}
	m.cfg.Stop, m.cfg.Start = record("stop", nil), record("start", &banger.Error{Err: errors.New("no memory"), Hint: "stop one"})
	for _, tc := range []struct {
		keys []string
		did  string
		text string
	}{
		{[]string{"x", "n"}, "", "db goes on"},
		{[]string{"x", "enter"}, "", "db goes on"},
		{[]string{"x", "y"}, "stop db", "db: stopped"},
		{[]string{"u"}, "", "db runs already"},
		{[]string{"down", "x"}, "", "old is stopped already"},
		{[]string{"s"}, "", "old is stopped: u starts it"},
		{[]string{"u"}, "start old", "no memory (stop one)"},
	} {
		did = nil
		press(m, tc.keys...)
		if got := strings.Join(did, " "); got != tc.did {
			t.Errorf("%q did %q, want %q", tc.keys, got, tc.did)
		}
		wantShown(t, strings.Join(tc.keys, " "), m, tc.text)
	}
	first := m.key("u", "u")
	if second := m.key("u", "u"); first == nil || second != nil {
		t.Error("a VM that is being started is started again")
	}
	wantShown(t, "while it starts", m, "old: is being started")
}

func TestLogs(t *testing.T) {
	m := table(t)
	press(m, "l")
	wantShown(t, "logs", m, "console of db", "line\nend\nq back")
	press(m, "up")
	wantShown(t, "back a line", m, "line 91 of 101", "!end")
	m.Update(logsMsg{id: m.subject.ID, text: strings.Repeat("line\n", 200)})
	wantShown(t, "more came", m, "line 91 of 200")
	press(m, "end")
	m.Update(logsMsg{id: m.subject.ID, text: strings.Repeat("line\n", 200) + "new\n"})
	wantShown(t, "at the end", m, "new\nq back")
	press(m, "home")
	wantShown(t, "at the beginning", m, "line 1 of 201")
	press(m, "q")
	wantShown(t, "back", m, "NAME*")
	m.Update(logsMsg{id: m.subject.ID, text: "late"})
	wantShown(t, "an answer that is late", m, "!late")
}

// Whatever the size of the terminal, nothing is drawn beside it.
func TestEverySize(t *testing.T) {
	for _, mode := range []mode{modeTable, modeFilter, modeStop, modeHelp, modeLogs} {
		m := table(t)
		long := vm(9, "a-name-of-sixty-three-characters-which-is-as-long-as-one-can-be", banger.StateError)
		long.LastError = strings.Repeat("日本語 why ", 30)
		rows := []banger.VM{long}
		for _, r := range m.all {
			rows = append(rows, r.vm)
		}
		m.Update(loadedMsg{vms: rows, stats: m.before})
		m.mode, m.filter, m.logs = mode, "", strings.Split(long.LastError, " ")
		for width := range 160 {
			for _, height := range []int{0, 1, 2, 3, 5, 8, 24} {
				m.Update(tea.WindowSizeMsg{Width: width, Height: height})
				lines := strings.Split(shown(m), "\n")
				if len(lines) > max(height, 1) {
					t.Fatalf("mode %d: %d lines in %d", mode, len(lines), height)
				}
				for _, line := range lines {
					if n := ansi.StringWidth(line); n > width {
						t.Fatalf("mode %d: a line of %d columns in %d: %q", mode, n, width, line)
					}
				}
			}
		}
		m.Update(tea.WindowSizeMsg{Width: 40, Height: 10})
		if mode == modeTable {
			wantShown(t, "40 columns", m, "NAME*", "STATE", "CPU", "running", "s shell", "? help", "q quit")
		}
	}
}

func TestShort(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 1: "1", 999: "999", 1000: "1K", 1023: "1K", 1536: "1.5K", 2048: "2K", 300 << 20: "300M", 1 << 30: "1G", 9.97 * (1 << 30): "10G", 16 << 40: "16T"} {
		if got := short(n); got != want {
			t.Errorf("short(%v) = %q, want %q", n, got, want)
		}
	}
	for n := 1.0; n < 1<<60; n *= 1.001 {
		if got := short(n); len(got) > 4 {
			t.Fatalf("short(%v) = %q", n, got)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0s", 59 * time.Second: "59s", 90 * time.Minute: "1h", 47 * time.Hour: "47h", 49 * time.Hour: "2d"} {
		if got := age(d); got != want {
			t.Errorf("age(%s) = %q, want %q", d, got, want)
		}
	}
}
