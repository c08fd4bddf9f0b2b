package top

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"banger"
	"banger/api"
)

// row is one VM. What is not known is nil or empty.
type row struct {
	vm      banger.VM
	stats   *api.VMStats
	in, out float64 // bytes a second
	rated   bool    // in and out are known
	ports   []uint16
}

// Columns are the names of the table's columns in their order, for Config.Sort.
func Columns() (names []string) {
	for _, c := range columns {
		names = append(names, c.name)
	}
	return names
}

// column is one of the table's. Where it is narrow those with the highest spare go first; those with 0 stay.
type column struct {
	name  string
	right bool // numbers; the largest comes first
	spare int
	cell  func(row, time.Time) string
	order func(a, b row) int
}

var columns = []column{
	{"name", false, 0, func(r row, _ time.Time) string { return r.vm.Spec.Name }, func(a, b row) int { return cmp.Compare(a.vm.Spec.Name, b.vm.Spec.Name) }},
	{"state", false, 0, func(r row, _ time.Time) string { return string(r.vm.State) }, func(a, b row) int { return cmp.Compare(a.vm.State, b.vm.State) }},
	{"cpu", true, 1, cpuCell, func(a, b row) int { return cmp.Compare(cpuOf(a), cpuOf(b)) }},
	{"memory", true, 2, memoryCell, func(a, b row) int { return cmp.Compare(memoryOf(a), memoryOf(b)) }},
	{"disk", true, 4, diskCell, func(a, b row) int { return cmp.Compare(diskOf(a), diskOf(b)) }},
	{"net", true, 5, netCell, func(a, b row) int { return cmp.Compare(a.in+a.out, b.in+b.out) }},
	{"ports", false, 6, func(r row, _ time.Time) string { return portsCell(r.ports) }, func(a, b row) int { return cmp.Compare(len(a.ports), len(b.ports)) }},
	{"age", true, 3, func(r row, now time.Time) string { return age(now.Sub(r.vm.CreatedAt)) }, func(a, b row) int { return b.vm.CreatedAt.Compare(a.vm.CreatedAt) }},
}

const unknown = "-"

func cpuOf(r row) float64 {
	if r.stats == nil || r.stats.CPUPercent == nil {
		return -1
	}
	return *r.stats.CPUPercent
}

func cpuCell(r row, _ time.Time) string {
	if cpu := cpuOf(r); cpu >= 0 {
		return fmt.Sprintf("%.1f%%", cpu)
	}
	return unknown
}

func memoryOf(r row) int64 {
	if r.stats == nil || r.stats.VMM == nil {
		return -1
	}
	return r.stats.VMM.ResidentBytes
}

func memoryCell(r row, _ time.Time) string {
	if memory := memoryOf(r); memory >= 0 {
		return short(float64(memory)) + "/" + short(float64(r.vm.Spec.MemoryMiB)*(1<<20))
	}
	return unknown
}

func diskOf(r row) int64 {
	if r.stats == nil {
		return -1
	}
	return r.stats.DiskAllocatedBytes
}

func diskCell(r row, _ time.Time) string {
	if disk := diskOf(r); disk >= 0 {
		return short(float64(disk)) + "/" + short(float64(r.vm.Spec.DiskBytes))
	}
	return unknown
}

func netCell(r row, _ time.Time) string {
	if !r.rated {
		return unknown
	}
	return short(r.in) + "/" + short(r.out)
}

// shownPorts is how many a row names; the others are counted.
const shownPorts = 2

func portsCell(ports []uint16) string {
	if len(ports) == 0 {
		return unknown
	}
	var parts []string
	for _, port := range ports[:min(len(ports), shownPorts)] {
		parts = append(parts, strconv.Itoa(int(port)))
	}
	if more := len(ports) - shownPorts; more > 0 {
		parts = append(parts, "+"+strconv.Itoa(more))
	}
	return strings.Join(parts, ",")
}

// short is an amount of bytes in at most four characters: 999, 1.5K, 300M.
func short(bytes float64) string {
	for _, unit := range []string{"", "K", "M", "G", "T", "P"} {
		if bytes < 999.5 {
			digits := 0
			if bytes < 9.95 {
				digits = 1
			}
			return strings.TrimSuffix(strconv.FormatFloat(bytes, 'f', digits, 64), ".0") + unit
		}
		bytes /= 1024
	}
	return "inf"
}

// age is a time in at most four characters.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// order is how rows are sorted.
type order struct {
	column  int
	reverse bool
}

func (o order) sort(rows []row) {
	c := columns[o.column]
	slices.SortStableFunc(rows, func(a, b row) int {
		n := c.order(a, b)
		if c.right != o.reverse {
			n = -n
		}
		return cmp.Or(n, cmp.Compare(a.vm.Spec.Name, b.vm.Spec.Name), cmp.Compare(a.vm.ID, b.vm.ID))
	})
}

// gap separates two columns.
const gap = 2

// minName is what is left of a name where it is narrow.
const minName = 6

// layout is the table with a head, in lines of at most width columns of the terminal.
func layout(rows []row, o order, now time.Time, width int) (head string, lines []string) {
	cells := make([][]string, len(rows))
	widths := make([]int, len(columns))
	heads := make([]string, len(columns))
	for i, c := range columns {
		heads[i] = strings.ToUpper(c.name)
		if i == o.column {
			heads[i] += map[bool]string{false: "*", true: "^"}[o.reverse]
		}
		widths[i] = ansi.StringWidth(heads[i])
		for j, r := range rows {
			cells[j] = append(cells[j], c.cell(r, now))
			widths[i] = max(widths[i], ansi.StringWidth(cells[j][i]))
		}
	}
	shown := fit(widths, width)
	line := func(cells []string) string {
		var b strings.Builder
		for n, i := range shown {
			cell := ansi.Truncate(cells[i], widths[i], "…")
			space := strings.Repeat(" ", widths[i]-ansi.StringWidth(cell))
			if columns[i].right {
				cell, space = space+cell, ""
			}
			b.WriteString(cell)
			if n < len(shown)-1 {
				b.WriteString(space + strings.Repeat(" ", gap))
			}
		}
		return ansi.Truncate(b.String(), width, "…")
	}
	for _, c := range cells {
		lines = append(lines, line(c))
	}
	return line(heads), lines
}

// fit chooses the columns that a width has room for, and shortens that of names for them.
func fit(widths []int, width int) (shown []int) {
	total := -gap
	for i, w := range widths {
		shown = append(shown, i)
		total += w + gap
	}
	for total > width {
		if cut := min(total-width, widths[0]-max(minName, min(widths[0], 16))); cut > 0 { // a long name first
			widths[0] -= cut
			total -= cut
			continue
		}
		at := 0
		for n, i := range shown {
			if columns[i].spare > columns[shown[at]].spare {
				at = n
			}
		}
		if columns[shown[at]].spare == 0 {
			break
		}
		total -= widths[shown[at]] + gap
		shown = slices.Delete(shown, at, at+1)
	}
	widths[0] = max(min(widths[0], minName), widths[0]-max(0, total-width))
	return shown
}
