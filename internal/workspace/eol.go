package workspace

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// textRule says how the end of a line differs between a file of a work tree and its blob, as gitattributes(5) has it.
type textRule struct {
	auto bool // only if the content looks like text, and the blob in the index has no CRLF
	crlf bool // lines of the work tree's file end with CRLF
}

// maxText is how large a file may be whose ends of lines are converted, in bytes.
const maxText = 16 << 20

// textRules asks the host's repository which of some paths are text: its attributes and settings count, not the guest's. Paths that are
// kept as they are have no rule.
func textRules(ctx context.Context, repo string, names []string) (map[string]textRule, error) {
	if repo == "" || len(names) == 0 {
		return nil, nil
	}
	g := git{dir: repo}
	settings, err := (&Repo{Root: repo}).endsOfLines(ctx)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := g.run(ctx, strings.NewReader(strings.Join(names, "\x00")+"\x00"), &out, "check-attr", "--stdin", "-z", "text", "eol"); err != nil {
		return nil, err
	}
	rules := map[string]textRule{}
	fields := strings.Split(out.String(), "\x00") // path, "text", value, path, "eol", value, …
	for ; len(fields) >= 6; fields = fields[6:] {
		if rule, ok := ruleOf(fields[2], fields[5], settings); ok {
			rules[fields[0]] = rule
		}
	}
	return rules, nil
}

// ruleOf decides as git's convert.c does.
func ruleOf(text, eol string, settings map[string]string) (rule textRule, ok bool) {
	autocrlf := settings["core.autocrlf"]
	rule.crlf = autocrlf == "true" || autocrlf != "input" && settings["core.eol"] == "crlf"
	switch {
	case text == "unset":
		return rule, false
	case text == "auto":
		rule.auto = true
	case text == "input":
		rule.crlf = false
	case text != "set" && eol != "lf" && eol != "crlf": // nothing is said of this path
		rule.auto = true
		return rule, autocrlf == "true" || autocrlf == "input"
	}
	if text != "input" && (eol == "lf" || eol == "crlf") {
		rule.crlf = eol == "crlf"
	}
	return rule, true
}

// toBlob gives what git stores for a file of the work tree; mixed tells that the blob in the index has CRLF.
func (r textRule) toBlob(content []byte, mixed bool) []byte {
	stats := statsOf(content)
	switch {
	case stats.crlf == 0, r.auto && (stats.binary() || mixed):
		return content
	case r.auto: // no CR stands alone
		return bytes.ReplaceAll(content, []byte("\r"), nil)
	}
	return bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
}

// toFile gives what git writes into the work tree for a blob.
func (r textRule) toFile(content []byte) []byte {
	stats := statsOf(content)
	if !r.crlf || stats.lf == 0 || r.auto && (stats.binary() || stats.crlf > 0) {
		return content
	}
	whole := bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(whole, []byte("\n"), []byte("\r\n"))
}

// textStats counts characters as git's gather_stats does.
type textStats struct{ nul, cr, lf, crlf, printable, other int }

func statsOf(content []byte) (s textStats) {
	for i := 0; i < len(content); i++ {
		switch c := content[i]; {
		case c == '\r' && i+1 < len(content) && content[i+1] == '\n':
			s.crlf++
			i++
		case c == '\r':
			s.cr++
		case c == '\n':
			s.lf++
		case c == 0:
			s.nul++
			s.other++
		case c == '\b', c == '\t', c == 0x1b, c == '\f', c >= 32 && c != 127:
			s.printable++
		default:
			s.other++
		}
	}
	if len(content) > 0 && content[len(content)-1] == 0x1a {
		s.other--
	}
	return s
}

func (s textStats) binary() bool { return s.cr > 0 || s.nul > 0 || s.printable>>7 < s.other }

// mixedBlobs tells which of some blobs are text with CRLF in it: git leaves such files as they are when it guesses.
func mixedBlobs(ctx context.Context, g git, ids []string) (map[string]bool, error) {
	mixed := map[string]bool{}
	if len(ids) == 0 {
		return mixed, nil
	}
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		w.CloseWithError(g.run(ctx, strings.NewReader(strings.Join(ids, "\n")+"\n"), w, "cat-file", "--batch", "--buffer"))
	}()
	in := bufio.NewReaderSize(r, 64<<10)
	for range ids {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		var id, kind string
		var size int64
		if n, _ := fmt.Sscanf(line, "%s %s %d", &id, &kind, &size); n != 3 {
			continue // "missing"
		}
		if kind == "blob" && size <= maxText {
			content := make([]byte, size)
			if _, err := io.ReadFull(in, content); err != nil {
				return nil, err
			}
			stats := statsOf(content)
			mixed[id], size = stats.crlf > 0 && !stats.binary(), 0
		}
		if _, err := io.CopyN(io.Discard, in, size+1); err != nil {
			return nil, err
		}
	}
	return mixed, nil
}

// converter gives files of the guest the content that git would store.
type converter struct {
	rules map[string]textRule
	mixed map[string]bool // blobs, by their object ids
	index map[string]blobRef
}

func (c *Copy) newConverter(ctx context.Context, w *workState, names []string) (converter, error) {
	rules, err := textRules(ctx, c.origin.attributes(), names)
	if err != nil {
		return converter{}, err
	}
	var ids []string
	for name, rule := range rules {
		if ref, ok := w.index[name]; ok && rule.auto && ref.mode != modeSubmodule {
			ids = append(ids, ref.id)
		}
	}
	slices.Sort(ids)
	mixed, err := mixedBlobs(ctx, c.g, slices.Compact(ids))
	return converter{rules, mixed, w.index}, err
}

// convert gives a file's content and size as git would store it. Of what is converted, raw is the object id of the file as it is.
func (c converter) convert(name string, content io.Reader, size int64) (_ io.Reader, _ int64, raw string, err error) {
	rule, ok := c.rules[name]
	if !ok || size > maxText {
		return content, size, "", nil
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(content, text); err != nil {
		return nil, 0, "", fmt.Errorf("%q: %w", name, err)
	}
	stored := rule.toBlob(text, c.mixed[c.index[name].id])
	return bytes.NewReader(stored), int64(len(stored)), blobID(text), nil
}
