package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
)

func lookup(name string) (string, bool) {
	value, ok := map[string]string{"OURS": "from us", "EMPTY": ""}[name]
	return value, ok
}

func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	text := "# comment\n\n A=1\nB=\"kept as it is\" \nOURS\n  # C=3\nD=a=b\r\nEMPTY\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := execFlags{env: []string{"A=2", "E=", "OURS"}, envFile: []string{file}}
	got, err := flags.environment(lookup)
	want := map[string]string{"A": "2", "B": `"kept as it is" `, "OURS": "from us", "D": "a=b", "E": "", "EMPTY": ""}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("environment: %v (-want +got):\n%s", err, diff)
	}
}

func TestEnvironmentErrors(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"space": "A B=1\n", "digit": "X=1\n1A=2\n", "unset": "NOPE\n", "nul": "A=\x00\n",
		"large": strings.Repeat("A=1\n", maxEnvFile/4+1)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := (&execFlags{envFile: []string{path}}).environment(lookup)
		if banger.KindName(err) != "invalid" || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want invalid and the file's name", name, err)
		}
	}
	if _, err := (&execFlags{envFile: []string{dir}}).environment(lookup); banger.KindName(err) != "invalid" {
		t.Errorf("a directory as file: %v, want invalid", err)
	}
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add("A=1\n# c\nOURS\n\nB==\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		env := map[string]string{}
		if err := parseEnvFile(env, strings.NewReader(text), lookup); err != nil {
			return
		}
		for name, value := range env {
			if err := banger.ValidateEnv(name, value); err != nil {
				t.Fatalf("parseEnvFile(%q) lets %q=%q through: %v", text, name, value, err)
			}
			if !strings.Contains(text, name) {
				t.Fatalf("parseEnvFile(%q) made up %q", text, name)
			}
		}
	})
}

func TestParseIdentity(t *testing.T) {
	for out, want := range map[string][2]string{
		"": {}, "user.name\nA B\x00user.email\na@b.example\x00": {"A B", "a@b.example"},
		"user.name\nold\x00user.name\nnew\x00": {"new", ""}, "user.name\x00": {}, "user.name\ntwo\nlines\x00": {"two\nlines", ""},
	} {
		if name, email := parseIdentity(out); name != want[0] || email != want[1] {
			t.Errorf("parseIdentity(%q) = %q, %q, want %q", out, name, email, want)
		}
	}
}
