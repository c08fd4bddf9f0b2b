package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"

	"banger/internal/atomicfile"
	"banger/internal/machine"
	"banger/internal/statedir"
)

// Limits of what a record tells, in bytes; of the console's end also in lines.
const (
	maxName   = 64
	maxDetail = 1000
	maxTail   = 8 << 10
	tailLines = 40
)

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	return atomicfile.Write(path, append(text, '\n'), 0o600)
}

// readHandles gives what another supervisor of this run recorded; nothing is no error.
func readHandles(dir statedir.VMDir) (machine.Handles, error) {
	handles, err := machine.ReadHandles(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return handles, nil
	}
	return handles, err
}

// panicMark is in the line by which a kernel says that it gives up; a trace of any length may follow.
const panicMark = "Kernel panic - not syncing"

// lastLines is the end of the console, fit for a person's terminal: the last lines, or those from a kernel's panic on.
func lastLines(tail []byte) string {
	text := strings.ReplaceAll(string(tail), "\r", "")
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	first := max(0, len(lines)-tailLines)
	for i, line := range lines[:first] {
		if strings.Contains(line, panicMark) {
			first = i
		}
	}
	lines = lines[first:min(first+tailLines, len(lines))]
	for i, line := range lines {
		lines[i] = escape(line, maxTail)
	}
	return strings.Join(lines, "\n")
}

// escape makes control characters and broken text visible and cuts what is longer than limit.
func escape(text string, limit int) string {
	var b bytes.Buffer
	for i, r := range text {
		switch {
		case b.Len() >= limit:
			return b.String() + "…"
		case r == unicode.ReplacementChar && !strings.HasPrefix(text[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case r == '\t':
			b.WriteByte(' ')
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
