package shown

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.md")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "'''", "```")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# Title\n\n'''\na 'b c' ~/d   # why\nx | y \"$z\" \\\n  more\n'''\n\n'''toml\nno = \"shell (\"\n'''\n\n'''sh\nv=1 e $(f g) <(h)\n'''\n")
	got, err := In(path)
	if err != nil {
		t.Fatal(err)
	}
	home, _ := os.LookupEnv("HOME")
	want := []Statement{
		{Line: 4, Block: 0, Text: "a 'b c' ~/d", Calls: [][]string{{"a", "b c", home + "/d"}}},
		{Line: 5, Block: 0, Text: "x | y \"$z\" \\\n  more", Calls: [][]string{{"x"}, {"y", "word", "more"}}},
		{Line: 14, Block: 1, Text: "v=1 e $(f g) <(h)", Calls: [][]string{{"e", "word", "word"}, {"f", "g"}, {"h"}}},
	}
	got[0].Calls[0][2], want[0].Calls[0][2] = filepath.Base(got[0].Calls[0][2]), "d"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("In = %+v\nwant %+v", got, want)
	}
	for text, wrong := range map[string]string{"'''\na (b\n'''\n": "block at line 1", "x\n'''\na\n": "line 2 has no end"} {
		write(text)
		if _, err := In(path); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("In of %q: %v, want an error with %q", text, err, wrong)
		}
	}
}
