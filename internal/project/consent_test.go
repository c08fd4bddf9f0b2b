package project

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/statedir"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func consents(t *testing.T) Consents {
	return Consents{Dir: statedir.Dir{Root: filepath.Join(t.TempDir(), "s")}}
}

// missing says how many needs of the repository at root are not allowed.
func missing(t *testing.T, c Consents, root string, o Options) int {
	t.Helper()
	p, err := Load(root, o)
	if err != nil {
		t.Fatal(err)
	}
	needs := p.Settings.Needs(p.Root, testHost())
	left, err := c.Missing(p, needs)
	if err != nil {
		t.Fatal(err)
	}
	return len(left)
}

func allow(t *testing.T, c Consents, p *Project) {
	t.Helper()
	if err := c.Allow(p, p.Settings.Needs(p.Root, testHost()), noon); err != nil {
		t.Fatal(err)
	}
}

// Consent is bound to the repository's place and to every byte of its files.
func TestConsent(t *testing.T) {
	const hungry = `{"containerEnv": {"A": "${localEnv:TOKEN}"}, "forwardPorts": [80]}`
	c := consents(t)
	root := t.TempDir()
	write(t, root, map[string]string{".devcontainer.json": hungry, TOMLFile: "vcpu = 1\n"})
	if n := missing(t, c, root, Options{}); n != 2 {
		t.Fatalf("%d needs, want 2", n)
	}
	allow(t, c, load(t, root))
	if n := missing(t, c, root, Options{}); n != 0 {
		t.Errorf("%d needs after the consent", n)
	}
	if n := missing(t, c, root, Options{NoDevcontainer: true}); n != 0 {
		t.Errorf("%d needs of a part of the files", n)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	if n := missing(t, c, link, Options{}); n != 0 {
		t.Errorf("%d needs by another name", n)
	}

	for name, text := range map[string]string{TOMLFile: "vcpu = 1\n#\n", ".devcontainer.json": hungry + " "} {
		before, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, root, map[string]string{name: text})
		if n := missing(t, c, root, Options{}); n != 2 {
			t.Errorf("%d needs with %s changed, want 2", n, name)
		}
		write(t, root, map[string]string{name: string(before)})
	}
	write(t, root, map[string]string{".devcontainer/devcontainer.json": hungry})
	if n := missing(t, c, root, Options{}); n != 2 {
		t.Errorf("%d needs of another file with the same text, want 2", n)
	}
	if err := os.RemoveAll(filepath.Join(root, ".devcontainer")); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	write(t, elsewhere, map[string]string{".devcontainer.json": hungry, TOMLFile: "vcpu = 1\n"})
	if n := missing(t, c, elsewhere, Options{}); n != 2 {
		t.Errorf("%d needs of a copy elsewhere, want 2", n)
	}

	list, err := c.List()
	if err != nil || len(list) != 1 || list[0].Path != load(t, root).Root || len(list[0].Grants) != 1 || len(list[0].Grants[0].Needs) != 2 {
		t.Errorf("list: %+v, %v", list, err)
	}
	info, err := os.Stat(c.Dir.Consent(list[0].Path))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if err := c.Revoke(list[0].Path); err != nil {
		t.Fatal(err)
	}
	if n := missing(t, c, root, Options{}); n != 2 {
		t.Errorf("%d needs after it was taken back, want 2", n)
	}
	if err := c.Revoke(list[0].Path); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("taken back twice: %v", err)
	}
}

// A repository that changes between the question and the use gets what it asked for, or is asked again: never more than was shown.
func TestChangedAfterTheQuestion(t *testing.T) {
	c := consents(t)
	root := t.TempDir()
	write(t, root, map[string]string{TOMLFile: "image = \"ubuntu:24.04\"\n[env]\nA = \"${localEnv:EDITOR}\"\n"})
	shown := load(t, root)
	write(t, root, map[string]string{TOMLFile: "image = \"ubuntu:24.04\"\n[env]\nA = \"${localEnv:AWS_SECRET}\"\n"})
	allow(t, c, shown)
	if got, err := shown.Settings.Resolve(Values{Root: root, LocalEnv: func(name string) (string, bool) { return name, true }}); err != nil || got.Env["A"] != "EDITOR" {
		t.Errorf("used: %v, %v", got.Env, err)
	}
	if n := missing(t, c, root, Options{}); n != 1 {
		t.Errorf("%d needs of what it says now, want 1", n)
	}
	write(t, root, map[string]string{TOMLFile: "image = \"ubuntu:24.04\"\n[env]\nA = \"${localEnv:EDITOR}\"\n"})
	if n := missing(t, c, root, Options{}); n != 0 {
		t.Errorf("%d needs of what it said then, want 0", n)
	}
}

// The consent holds names, never values; and a damaged one allows nothing.
func TestConsentFile(t *testing.T) {
	c := consents(t)
	root := t.TempDir()
	t.Setenv("PROJECT_SECRET", "s3cr3t-value")
	write(t, root, map[string]string{TOMLFile: "[env]\nA = \"${localEnv:PROJECT_SECRET:fallback}\"\n"})
	p := load(t, root)
	allow(t, c, p)
	file := c.Dir.Consent(p.Root)
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "PROJECT_SECRET") || strings.Contains(string(text), "s3cr3t") {
		t.Errorf("the file: %s, %v", text, err)
	}
	needs := p.Settings.Needs(p.Root, testHost())
	other := *p
	other.Files = []File{{Name: TOMLFile, Sum: "0"}}
	again := Digest(p, needs)
	if Digest(p, needs) == Digest(&other, needs) || Digest(p, needs) == Digest(p, nil) || Digest(p, needs) != again {
		t.Error("the digest does not stand for the question")
	}
	for i := range maxGrants + 5 {
		if err := c.Allow(&Project{Root: p.Root, Files: []File{{Name: strings.Repeat("x", i), Sum: "0"}}}, nil, noon); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := c.List(); err != nil || len(list) != 1 || len(list[0].Grants) != maxGrants {
		t.Errorf("many grants: %d, %v", len(list), err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Missing(p, needs); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("a damaged file: %v, %v", left, err)
	}
}
