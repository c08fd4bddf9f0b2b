package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"banger"
)

// View draws all of the screen.
func (m *model) View() tea.View {
	var lines []string
	switch m.mode {
	case modeHelp:
		lines = m.helpLines()
	case modeLogs:
		lines = m.logLines()
	default:
		lines = m.tableLines()
	}
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "")
	}
	v := tea.NewView(strings.Join(lines[:min(len(lines), max(m.height, 1))], "\n"))
	v.AltScreen = true
	v.WindowTitle = "banger top"
	return v
}

// room is how many rows of the table there is place for: a summary, the head and two lines at the bottom are there, too.
func (m *model) room() int { return max(1, m.height-4) }

// logRoom is the same for lines of a console.
func (m *model) logRoom() int { return max(1, m.height-2) }

func (m *model) tableLines() []string {
	rows := m.rows()
	at := m.selected(rows)
	head, lines := layout(rows, m.order, m.now(), m.width)
	shown := []string{m.summary(len(rows)), m.bold(head)}
	for i, line := range lines[m.first:min(len(lines), m.first+m.room())] {
		i += m.first
		switch {
		case i == at:
			line = m.reverse(line + strings.Repeat(" ", max(0, m.width-ansi.StringWidth(line))))
		case rows[i].vm.State == banger.StateError:
			line = m.color(ansi.Red, line)
		case rows[i].vm.State != banger.StateRunning:
			line = m.color(ansi.BrightBlack, line)
		}
		shown = append(shown, line)
	}
	if len(rows) == 0 {
		shown = append(shown, m.empty())
	}
	for len(shown) < m.height-2 {
		shown = append(shown, "")
	}
	return append(shown, m.statusLine(rows, at), m.keysLine())
}

func (m *model) empty() string {
	switch {
	case !m.loaded:
		return "..."
	case len(m.all) == 0:
		return "no VMs yet (make one with: banger vm run)"
	}
	return "no VM is like that"
}

// summary is of all VMs.
func (m *model) summary(shown int) string {
	running, cpu, memory := 0, 0.0, int64(0)
	for _, r := range m.all {
		if r.vm.State == banger.StateRunning {
			running++
		}
		cpu += max(0, cpuOf(r))
		memory += max(0, memoryOf(r))
	}
	many := "s"
	if len(m.all) == 1 {
		many = ""
	}
	text := fmt.Sprintf("%d VM%s, %d running  cpu %.0f%%  memory %s", len(m.all), many, running, cpu, short(float64(memory)))
	if shown != len(m.all) {
		text += fmt.Sprintf("  %d shown", shown)
	}
	return text
}

// statusLine is what matters most now.
func (m *model) statusLine(rows []row, at int) string {
	switch {
	case m.mode == modeFilter:
		return "filter: " + m.filter + m.reverse(" ") + "  (Enter keeps it, Esc ends it)"
	case m.mode == modeStop:
		return m.bold(fmt.Sprintf("stop %s? y or n", m.subject.Spec.Name))
	case m.trouble != "":
		return m.color(ansi.Red, "no answer, trying again: "+m.trouble)
	case m.note != "" && m.now().Sub(m.noteAt) < noteFor:
		return m.note
	}
	if at >= 0 {
		vm := rows[at].vm
		switch {
		case m.busy[vm.ID] != "":
			return vm.Spec.Name + " " + m.busy[vm.ID]
		case vm.State == banger.StateError && vm.LastError != "":
			return vm.Spec.Name + ": " + oneLine(vm.LastError)
		}
	}
	if m.filter != "" {
		return "filter: " + m.filter + "  (Esc ends it)"
	}
	return ""
}

// keysLine has as many keys as there is room for: help and quit, then the others in their order.
func (m *model) keysLine() string {
	last := len(bindings) - 2
	width := -gap
	room := func(i int) bool {
		b := bindings[i]
		need := len(b.keys) + 1 + len(b.brief) + gap
		if b.keys == "" || width+need > m.width {
			return false
		}
		width += need
		return true
	}
	var parts, end []string
	add := func(list []string, i int) []string {
		if room(i) {
			list = append(list, m.bold(bindings[i].keys)+" "+bindings[i].brief)
		}
		return list
	}
	for i := last; i < len(bindings); i++ {
		end = add(end, i)
	}
	for i := range last {
		parts = add(parts, i)
	}
	return strings.Join(append(parts, end...), strings.Repeat(" ", gap))
}

func (m *model) helpLines() []string {
	lines := []string{m.bold("any key leads back"), ""}
	for _, b := range bindings {
		lines = append(lines, b.text)
	}
	return append(lines, "", "CPU is of one processor: 200% are two. MEMORY and DISK: used/at most.", "NET: received/sent in a second.")
}

func (m *model) logLines() []string {
	title := m.bold("console of " + m.subject.Spec.Name)
	if !m.follow {
		title += fmt.Sprintf("  line %d of %d", m.from+1, len(m.logs))
	}
	lines := []string{title}
	lines = append(lines, m.logs[m.from:min(len(m.logs), m.from+m.logRoom())]...)
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	if m.note != "" && m.now().Sub(m.noteAt) < noteFor {
		return append(lines, m.note)
	}
	return append(lines, m.bold("q")+" back  "+m.bold("Up Down PgUp PgDn Home End")+" scroll")
}

func (m *model) bold(text string) string { return ansi.Style{}.Bold().Styled(text) }

func (m *model) reverse(text string) string { return ansi.Style{}.Reverse(true).Styled(text) }

func (m *model) color(c ansi.BasicColor, text string) string {
	if !m.cfg.Color {
		return text
	}
	return ansi.Style{}.ForegroundColor(c).Styled(text)
}
