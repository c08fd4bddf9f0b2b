package top

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"banger"
	"banger/api"
)

// mode is what keys mean.
type mode int

const (
	modeTable mode = iota
	modeFilter
	modeStop // asks whether to stop the chosen VM
	modeHelp
	modeLogs
)

// portsEvery is how many looks pass between two questions to guests for their ports.
const portsEvery = 5

// noteFor is how long the outcome of what was done stays on the screen.
const noteFor = 8 * time.Second

// model is all that is known and chosen.
type model struct {
	ctx           context.Context
	cfg           Config
	now           func() time.Time
	width, height int

	mode   mode
	order  order
	filter string

	loaded  bool // there was an answer
	trouble string
	all     []row
	before  api.Stats
	ports   map[banger.VMID][]uint16
	asking  bool // for ports
	looks   int
	away    bool // another program has the terminal

	chosen banger.VMID
	first  int // row at the top of the screen

	busy   map[banger.VMID]string // what is being done
	note   string
	noteAt time.Time

	subject banger.VM // of the question or of the logs
	logs    []string
	from    int  // line of logs at the top of the screen
	follow  bool // the end of logs stays in sight
}

func newModel(ctx context.Context, cfg Config) *model {
	m := &model{ctx: ctx, cfg: cfg, now: time.Now, width: 80, height: 24, ports: map[banger.VMID][]uint16{}, busy: map[banger.VMID]string{}}
	m.order.column = max(0, slices.Index(Columns(), cfg.Sort))
	return m
}

// What comes back from the functions of Config.
type (
	loadedMsg struct {
		vms   []banger.VM
		stats api.Stats
		err   error
	}
	lookMsg  struct{}
	portsMsg map[banger.VMID][]uint16
	doneMsg  struct {
		vm   banger.VM
		what string // "stopped"; empty: a shell was left
		err  error
	}
	logsMsg struct {
		id   banger.VMID
		text string
		err  error
	}
)

func (m *model) Init() tea.Cmd { return m.load }

func (m *model) load() tea.Msg {
	vms, stats, err := m.cfg.Load(m.ctx)
	return loadedMsg{vms, stats, err}
}

// Update is the one place where anything changes.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.scroll()
	case tea.KeyPressMsg:
		return m, m.key(msg.String(), msg.Text)
	case tea.PasteMsg:
		if m.mode == modeFilter {
			m.setFilter(m.filter + oneLine(msg.Content))
		}
	case loadedMsg:
		m.take(msg)
		return m, tea.Batch(m.askPorts(), tea.Tick(m.cfg.Interval, func(time.Time) tea.Msg { return lookMsg{} }))
	case lookMsg:
		return m, tea.Batch(m.load, m.readLogs())
	case portsMsg:
		m.asking = false
		for id, ports := range msg {
			m.ports[id] = ports
		}
		m.setPorts()
	case doneMsg:
		return m, m.done(msg)
	case logsMsg:
		m.takeLogs(msg)
	}
	return m, nil
}

func (m *model) take(msg loadedMsg) {
	if msg.err != nil {
		m.trouble = oneLine(msg.err.Error())
		return
	}
	m.trouble, m.loaded = "", true
	stats := msg.stats.Since(m.before)
	byID := map[banger.VMID]*api.VMStats{}
	for i := range stats.VMs {
		byID[stats.VMs[i].ID] = &stats.VMs[i]
	}
	earlier := map[banger.VMID]banger.NetTraffic{}
	for _, vm := range m.before.VMs {
		if vm.Net != nil {
			earlier[vm.ID] = *vm.Net
		}
	}
	elapsed := stats.At.Sub(m.before.At).Seconds()
	m.all = nil
	for _, vm := range msg.vms {
		r := row{vm: vm, stats: byID[vm.ID]}
		if then, known := earlier[vm.ID]; known && r.stats != nil && r.stats.Net != nil && elapsed > 0 {
			r.in = float64(r.stats.Net.ReceivedBytes-then.ReceivedBytes) / elapsed
			r.out = float64(r.stats.Net.SentBytes-then.SentBytes) / elapsed
			r.rated = r.in >= 0 && r.out >= 0 // else it is another run
		}
		m.all = append(m.all, r)
	}
	m.before = stats
	m.setPorts()
	m.scroll()
}

// setPorts puts what guests said into their rows; what is known of others goes.
func (m *model) setPorts() {
	known := map[banger.VMID][]uint16{}
	for i := range m.all {
		r := &m.all[i]
		r.ports = nil
		if ports, ok := m.ports[r.vm.ID]; ok && r.vm.State == banger.StateRunning {
			r.ports, known[r.vm.ID] = ports, ports
		}
	}
	m.ports = known
}

// askPorts asks the guests on the screen for their ports, now and then.
func (m *model) askPorts() tea.Cmd {
	m.looks++
	if m.asking || m.away || m.looks%portsEvery != 1 {
		return nil
	}
	var ids []banger.VMID
	rows := m.rows()
	for _, r := range rows[m.first:min(len(rows), m.first+m.room())] {
		if r.vm.State == banger.StateRunning {
			ids = append(ids, r.vm.ID)
		}
	}
	m.asking = true
	return func() tea.Msg {
		found := portsMsg{}
		for _, id := range ids {
			if ports, err := m.cfg.Ports(m.ctx, id); err == nil {
				found[id] = ports
			}
		}
		return found
	}
}

// rows are those that the filter lets through, in order.
func (m *model) rows() (rows []row) {
	for _, r := range m.all {
		if strings.Contains(strings.ToLower(r.vm.Spec.Name+" "+string(r.vm.State)+" "+r.vm.Spec.Image), strings.ToLower(m.filter)) {
			rows = append(rows, r)
		}
	}
	m.order.sort(rows)
	return rows
}

// selected is the chosen VM's place among rows; the nearest one when that VM is not there. -1: there is none.
func (m *model) selected(rows []row) int {
	at := slices.IndexFunc(rows, func(r row) bool { return r.vm.ID == m.chosen })
	if at < 0 && len(rows) > 0 {
		at = min(m.first, len(rows)-1)
	}
	return at
}

// scroll keeps the chosen VM on the screen.
func (m *model) scroll() {
	rows := m.rows()
	at := m.selected(rows)
	if at < 0 {
		m.first = 0
		return
	}
	m.chosen = rows[at].vm.ID
	room := m.room()
	m.first = max(0, min(max(min(m.first, at), at-room+1), len(rows)-room))
}

// choose moves by n rows.
func (m *model) choose(n int) {
	rows := m.rows()
	if at := m.selected(rows); at >= 0 {
		m.chosen = rows[max(0, min(at+n, len(rows)-1))].vm.ID
	}
	m.scroll()
}

func (m *model) setFilter(text string) {
	m.filter = text
	m.scroll()
}

func (m *model) tell(format string, args ...any) {
	m.note, m.noteAt = oneLine(fmt.Sprintf(format, args...)), m.now()
}

// oneLine keeps a text from breaking the screen.
func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}

// act begins something that ends with a doneMsg.
func (m *model) act(vm banger.VM, doing, done string, do func(context.Context, banger.VM) error) tea.Cmd {
	if m.busy[vm.ID] != "" {
		m.tell("%s: %s", vm.Spec.Name, m.busy[vm.ID])
		return nil
	}
	m.busy[vm.ID] = doing
	return func() tea.Msg { return doneMsg{vm, done, do(m.ctx, vm)} }
}

func (m *model) done(msg doneMsg) tea.Cmd {
	delete(m.busy, msg.vm.ID)
	m.away = m.away && msg.what != ""
	switch {
	case msg.err != nil:
		text := msg.err.Error()
		if hint := banger.HintOf(msg.err); hint != "" {
			text += " (" + hint + ")"
		}
		m.tell("%s", text)
	case msg.what != "":
		m.tell("%s: %s", msg.vm.Spec.Name, msg.what)
	}
	return nil
}

// readLogs asks for the console that is shown.
func (m *model) readLogs() tea.Cmd {
	if m.mode != modeLogs {
		return nil
	}
	id := m.subject.ID
	return func() tea.Msg {
		text, err := m.cfg.Logs(m.ctx, id)
		return logsMsg{id, text, err}
	}
}

func (m *model) takeLogs(msg logsMsg) {
	switch {
	case m.mode != modeLogs || msg.id != m.subject.ID:
	case msg.err != nil:
		m.tell("%s", msg.err.Error())
	default:
		m.logs = strings.Split(strings.TrimRight(msg.text, "\n"), "\n")
		m.scrollLogs(0)
	}
}

// scrollLogs moves by n lines. At the end it stays with what comes.
func (m *model) scrollLogs(n int) {
	last := max(0, len(m.logs)-m.logRoom())
	if m.follow && n >= 0 {
		m.from = last
	}
	m.from = max(0, min(m.from+n, last))
	m.follow = m.from == last
}
