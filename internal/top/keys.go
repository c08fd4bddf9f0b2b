package top

import (
	"io"

	tea "charm.land/bubbletea/v2"

	"banger"
)

// bindings are the keys of the table in the order of the help; the first ones are below the table, too.
var bindings = []struct{ keys, brief, text string }{
	{"s", "shell", "s, Enter     a shell in the VM; leaving it leads back here"},
	{"l", "logs", "l            its console"},
	{"x", "stop", "x            stop it (asks first)"},
	{"u", "start", "u            start it"},
	{"/", "filter", "/            show only VMs whose name, state or image has a text"},
	{"<>", "sort", "< >          sort by the column on the left, on the right"},
	{"", "", "r            the other way round"},
	{"", "", "Up Down j k  another VM; also PgUp, PgDn, Home, End"},
	{"?", "help", "?            this help"},
	{"q", "quit", "q, Ctrl-C    leave; VMs go on"},
}

// key does what a key means. Text is what it types, if anything.
func (m *model) key(key, text string) tea.Cmd {
	switch key {
	case "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return tea.Suspend
	}
	switch m.mode {
	case modeFilter:
		m.filterKey(key, text)
		return nil
	case modeStop:
		m.mode = modeTable
		if key == "y" {
			return m.act(m.subject, "is being stopped", "stopped", m.cfg.Stop)
		}
		m.tell("%s goes on", m.subject.Spec.Name)
		return nil
	case modeHelp:
		m.mode = modeTable
		return nil
	case modeLogs:
		m.logsKey(key)
		return nil
	}
	return m.tableKey(key)
}

func (m *model) tableKey(key string) tea.Cmd {
	m.note = ""
	if n, moves := moves(key, m.room()); moves {
		m.choose(n)
		return nil
	}
	switch key {
	case "q":
		return tea.Quit
	case "?", "h":
		m.mode = modeHelp
	case "/":
		m.mode = modeFilter
	case "esc":
		m.setFilter("")
	case "<", ">":
		step := map[string]int{"<": len(columns) - 1, ">": 1}[key]
		m.order = order{column: (m.order.column + step) % len(columns)}
		m.scroll()
	case "r":
		m.order.reverse = !m.order.reverse
		m.scroll()
	default:
		return m.vmKey(key)
	}
	return nil
}

// moves gives by how many lines a key moves.
func moves(key string, page int) (n int, ok bool) {
	n, ok = map[string]int{"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -page, "pgdown": page, "home": -1 << 30, "g": -1 << 30, "end": 1 << 30, "G": 1 << 30}[key]
	return n, ok
}

// vmKey does something to the chosen VM.
func (m *model) vmKey(key string) tea.Cmd {
	rows := m.rows()
	at := m.selected(rows)
	if at < 0 {
		return nil
	}
	vm := rows[at].vm
	switch key {
	case "s", "enter":
		if vm.State != banger.StateRunning {
			m.tell("%s is %s: u starts it", vm.Spec.Name, vm.State)
			return nil
		}
		m.away = true
		return tea.Exec(inTerminal(func() error { return m.cfg.Shell(m.ctx, vm) }), func(err error) tea.Msg { return doneMsg{vm, "", err} })
	case "l":
		m.mode, m.subject, m.logs, m.from, m.follow = modeLogs, vm, nil, 0, true
		return m.readLogs()
	case "x":
		if vm.State == banger.StateStopped {
			m.tell("%s is stopped already", vm.Spec.Name)
			return nil
		}
		m.mode, m.subject = modeStop, vm
	case "u":
		if vm.State == banger.StateRunning {
			m.tell("%s runs already", vm.Spec.Name)
			return nil
		}
		return m.act(vm, "is being started", "runs", m.cfg.Start)
	}
	return nil
}

func (m *model) filterKey(key, text string) {
	switch key {
	case "enter":
		m.mode = modeTable
	case "esc":
		m.mode = modeTable
		m.setFilter("")
	case "ctrl+u":
		m.setFilter("")
	case "backspace":
		if runes := []rune(m.filter); len(runes) > 0 {
			m.setFilter(string(runes[:len(runes)-1]))
		}
	case "up", "down":
		n, _ := moves(key, 0)
		m.choose(n)
	default:
		m.setFilter(m.filter + text)
	}
}

func (m *model) logsKey(key string) {
	if n, ok := moves(key, m.logRoom()); ok {
		m.scrollLogs(n)
		return
	}
	switch key {
	case "q", "esc", "l", "left", "enter":
		m.mode, m.logs = modeTable, nil
	}
}

// inTerminal is a function that has the terminal while it runs. It has the streams already.
type inTerminal func() error

func (f inTerminal) Run() error        { return f() }
func (inTerminal) SetStdin(io.Reader)  {}
func (inTerminal) SetStdout(io.Writer) {}
func (inTerminal) SetStderr(io.Writer) {}
