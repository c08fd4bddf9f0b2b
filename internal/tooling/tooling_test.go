package tooling

import (
	"encoding/json"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func repo(files map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		text, ok := files[name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return []byte(text), nil
	}
}

func TestDetect(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		mise  string
		tools string // name@version<file, in order
		notes int
	}{
		{"nothing", map[string]string{"README": "x"}, "", "", 0},
		{"go", map[string]string{"go.mod": "module x\n\ngo 1.22.3 // pinned\n\nrequire (\n\tgo 1.1\n)\n"}, "", "go@1.22.3<go.mod", 0},
		{"toolchain", map[string]string{"go.mod": "module x\ngo 1.22\ntoolchain go1.23.1-custom\n"}, "", "go@1.23.1<go.mod", 0},
		{"toolchain default", map[string]string{"go.mod": "go 1.24rc1\ntoolchain default\n"}, "", "go@1.24rc1<go.mod", 0},
		{"go.mod without a version", map[string]string{"go.mod": "module x\n"}, "", "", 0},
		{"go.mod that is hostile", map[string]string{"go.mod": "go $(reboot)\n"}, "", "", 1},
		{"nvmrc", map[string]string{".nvmrc": "# ours\nv20.11.0\n", "package.json": `{"engines":{"node":"18"}}`}, "", "node@20.11.0<.nvmrc", 0},
		{"nvmrc lts", map[string]string{".nvmrc": "lts/*"}, "", "node@lts<.nvmrc", 0},
		{"nvmrc by name", map[string]string{".nvmrc": "lts/iron"}, "", "", 1},
		{"empty nvmrc", map[string]string{".nvmrc": "\n", "package.json": `{"engines":{"node":"20.x"}}`}, "", "node@20<package.json", 0},
		{"volta", map[string]string{"package.json": `{"engines":{"node":">=18"},"volta":{"node":"20.1.0","npm":"10"}}`}, "", "node@20.1.0<package.json", 0},
		{"a range", map[string]string{"package.json": `{"engines":{"node":">=18 <21"}}`}, "", "", 1},
		{"no JSON", map[string]string{"package.json": `{`}, "", "", 1},
		{"engines of another kind", map[string]string{"package.json": `{"engines":["node"]}`}, "", "", 1},
		{"python", map[string]string{".python-version": "3.12.1\n3.11\n"}, "", "python@3.12.1<.python-version", 0},
		{"another python", map[string]string{".python-version": "pypy3.9-7.3.9"}, "", "", 1},
		{"rust", map[string]string{"rust-toolchain.toml": "[toolchain]\nchannel = \"1.75.0\"\ncomponents = [\"clippy\"]\n"}, "", "rust@1.75.0<rust-toolchain.toml", 0},
		{"rust by a line", map[string]string{"rust-toolchain": "nightly-2024-01-02\n"}, "", "rust@nightly-2024-01-02<rust-toolchain", 0},
		{"rust of a path", map[string]string{"rust-toolchain": "[toolchain]\npath = \"/x\"\n"}, "", "", 0},
		{"no rust", map[string]string{"rust-toolchain": "../../x"}, "", "", 1},
		{"mise has them", map[string]string{"mise.toml": "[tools]\ngo = \"1.20\"\n\"core:python\" = [\"3\"]\n", "go.mod": "go 1.22\n", ".python-version": "3.1", ".nvmrc": "20"}, "mise.toml", "node@20<.nvmrc", 0},
		{"tool-versions", map[string]string{".tool-versions": "# x\nnodejs 20 # y\ngolang 1.22\n", "go.mod": "go 1.22\n", ".nvmrc": "18"}, ".tool-versions", "", 0},
		{"all", map[string]string{".mise.toml": "[env]\nX = \"1\"\n", ".tool-versions": "", "go.mod": "go 1.22\n", ".nvmrc": "18", ".python-version": "3.12", "rust-toolchain": "stable"},
			".mise.toml .tool-versions", "go@1.22<go.mod node@18<.nvmrc python@3.12<.python-version rust@stable<rust-toolchain", 0},
		{"mise that is none", map[string]string{"mise.toml": "= 3"}, "mise.toml", "", 1},
		{"too large", map[string]string{"go.mod": "go 1.22\n" + strings.Repeat("\n", MaxFile)}, "", "", 1},
	} {
		got := Detect(repo(tc.files))
		var tools []string
		for _, tool := range got.Tools {
			tools = append(tools, tool.String()+"<"+tool.From)
		}
		if strings.Join(got.Mise, " ") != tc.mise || strings.Join(tools, " ") != tc.tools || len(got.Notices) != tc.notes {
			t.Errorf("%s: %+v, want mise %q, tools %q and %d notices", tc.name, got, tc.mise, tc.tools, tc.notes)
		}
		if got.Empty() != (tc.mise == "" && tc.tools == "") {
			t.Errorf("%s: Empty is %v", tc.name, got.Empty())
		}
	}
}

var safe = regexp.MustCompile(`^[a-z]+@[A-Za-z0-9.-]+$`)

// Whatever the files say: a tool is a name of ours and a version without anything that a shell or an option would mean, once at the most,
// and the same files give the same plan.
func FuzzDetect(f *testing.F) {
	f.Add("go.mod", "go 1.22\ntoolchain go1.23\n", "mise.toml", "[tools]\ngo = \"1\"\n")
	f.Add("package.json", `{"volta":{"node":"20"}}`, ".nvmrc", "lts/*")
	f.Add("rust-toolchain", "[toolchain]\nchannel = \"stable\"", ".python-version", "3.12")
	f.Add(".tool-versions", "node 1", "rust-toolchain.toml", "nightly")
	f.Fuzz(func(t *testing.T, nameA, textA, nameB, textB string) {
		files := map[string]string{nameA: textA, nameB: textB}
		plan := Detect(repo(files))
		seen := map[string]bool{}
		for _, tool := range plan.Tools {
			if !safe.MatchString(tool.String()) || strings.HasPrefix(tool.Version, "-") || seen[tool.Name] || files[tool.From] == "" {
				t.Fatalf("%q gives %+v", files, tool)
			}
			seen[tool.Name] = true
		}
		if diff := cmp.Diff(plan, Detect(repo(files))); diff != "" {
			t.Fatalf("twice: %s", diff)
		}
		if _, err := json.Marshal(plan); err != nil {
			t.Fatal(err)
		}
	})
}
