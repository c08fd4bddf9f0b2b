package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/spf13/cobra"

	"banger"
	"banger/internal/project"
	"banger/internal/statedir"
)

// question is a repository's wish on a terminal; before its answer the function runs.
func question(t *testing.T, root, answer string, meanwhile func()) (*wish, error) {
	t.Helper()
	mine, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	defer theirs.Close()
	a := &app{Streams: Streams{In: theirs, Out: &bytes.Buffer{}, Err: theirs}, now: time.Now}
	w := &wish{}
	if w.Project, err = project.Load(root, project.Options{Home: "/home/me"}); err != nil {
		t.Fatal(err)
	}
	w.host = project.Host{Net: banger.NetFull, SignedIn: func(string) bool { return false }}
	w.needs = w.Settings.Needs(w.Root, w.host)
	w.missing = w.needs
	ended := make(chan error, 1)
	go func() { ended <- a.consent(t.Context(), w, "vm run") }()
	var shown strings.Builder
	for b := make([]byte, 4096); !strings.Contains(shown.String(), "[y/N]"); {
		n, err := mine.Read(b)
		if err != nil {
			t.Fatalf("after %q: %v", shown.String(), err)
		}
		shown.Write(b[:n])
	}
	if strings.Contains(shown.String(), "\x1b") || !strings.Contains(shown.String(), `A\x1b[2JB`) {
		t.Errorf("the question: %q", shown.String())
	}
	meanwhile()
	if _, err := mine.WriteString(answer); err != nil {
		t.Fatal(err)
	}
	return w, <-ended
}

// Only a yes is one, it counts for what was shown, and what was shown is what is used: not what the file says by then.
func TestConsentOnATerminal(t *testing.T) {
	t.Setenv("BANGER_STATE_DIR", filepath.Join(t.TempDir(), "s"))
	dir, err := statedir.Locate()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	file := filepath.Join(root, ".devcontainer.json")
	write := func(variable string) {
		if err := os.WriteFile(file, []byte(`{"containerEnv": {"X": "${localEnv:`+variable+`}"}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const shown = `A\u001b[2JB`
	missing := func(w *wish) int {
		left, err := project.Consents{Dir: dir}.Missing(w.Project, w.needs)
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	for _, answer := range []string{"\n", "no\n", "yeah\n", "\x04"} {
		write(shown)
		w, err := question(t, root, answer, func() {})
		if !errors.Is(err, banger.ErrRefused) || statusOf(err) != statusRefused || missing(w) != 1 {
			t.Errorf("%q: %v, %d missing", answer, err, missing(w))
		}
	}

	write(shown)
	w, err := question(t, root, "y\n", func() { write("AWS_SECRET") })
	if err != nil || missing(w) != 0 || len(w.missing) != 0 {
		t.Fatalf("y: %v, %d missing", err, missing(w))
	}
	asked := map[string]bool{}
	if _, err := w.Settings.Resolve(project.Values{Root: root, LocalEnv: func(name string) (string, bool) { asked[name] = true; return "", true }}); err != nil || len(asked) != 1 || !asked["A\x1b[2JB"] {
		t.Errorf("the environment is asked for %v, %v", asked, err)
	}
	now := &wish{}
	if now.Project, err = project.Load(root, project.Options{Home: "/home/me"}); err != nil {
		t.Fatal(err)
	}
	if now.needs = now.Settings.Needs(now.Root, w.host); missing(now) != 1 || now.needs[0].Value != "AWS_SECRET" {
		t.Errorf("what the file says now: %+v, %d missing", now.needs, missing(now))
	}
	write(shown)
	if w, err := project.Load(root, project.Options{Home: "/home/me"}); err != nil || missing(&wish{Project: w, needs: now.needs}) != 1 {
		t.Errorf("another need for the files that were allowed: %v", err)
	}
}

// Flags take the place of what files say, and what is only wanted gives way.
func TestWishBesideFlags(t *testing.T) {
	root := t.TempDir()
	text := "image = \"web\"\nuser = \"dev\"\nnet = \"none\"\nallow_host = [80]\n[env]\nA = \"file\"\nB = \"file\"\n"
	if err := os.WriteFile(filepath.Join(root, project.TOMLFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		want []string // keys that the files still set
	}{
		{"none", nil, []string{"allow_host", "env.A", "env.B", "image", "net", "user"}},
		{"image and user", []string{"--image", "x", "--user", "root"}, []string{"allow_host", "env.A", "env.B", "net"}},
		{"network", []string{"--net", "full"}, []string{"env.A", "env.B", "image", "user"}},
		{"another port of the host", []string{"--allow-host", "81"}, []string{"allow_host", "env.A", "env.B", "image", "net", "user"}},
		{"variables", []string{"--env", "A=1", "-e", "C=2"}, []string{"allow_host", "env.B", "image", "net", "user"}},
	} {
		p, err := project.Load(root, project.Options{Home: "/home/me"})
		if err != nil {
			t.Fatal(err)
		}
		var flags runFlags
		cmd := &cobra.Command{}
		flags.spec.add(&app{}, cmd)
		flags.plan.add(cmd)
		flags.exec.add(cmd)
		if err := cmd.ParseFlags(test.args); err != nil {
			t.Fatal(err)
		}
		if flags.req, err = flags.spec.request(); err != nil {
			t.Fatal(err)
		}
		s := p.Settings.Without(flags.instead(p.Settings)...)
		var keys []string
		for key := range s.From {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		if !slices.Equal(keys, test.want) {
			t.Errorf("%s: %q, want %q", test.name, keys, test.want)
		}
	}
}

func TestPlaceInTheVM(t *testing.T) {
	for _, test := range []struct{ folder, user, guestPath, dest, dir string }{
		{"", "", "", "/root/repo", ""},
		{"", "dev", "", "/workspaces/app", ""},
		{"", "1000:1000", "", "/workspaces/app", ""},
		{"", "0:0", "", "/root/repo", ""},
		{"", "root:wheel", "", "/root/repo", ""},
		{"/workspaces/app", "", "", "/workspaces/app", ""},
		{"/workspaces/app/web", "", "", "/workspaces/app", "/workspaces/app/web"},
		{"/srv/app", "", "", "/srv/app", ""},
		{"/app", "", "", "/root/repo", ""},
		{"relative/x", "", "", "/root/repo", ""},
	} {
		w := &wish{Project: &project.Project{Root: "/home/me/app"}}
		flags := runFlags{}
		flags.exec.user = test.user
		plans := []planned{{}}
		plans[0].Repo.Root = "/home/me/app"
		w.place(&flags, plans, test.folder)
		if plans[0].dest != test.dest || w.folder != test.dir {
			t.Errorf("%+v: in %s, commands in %q", test, plans[0].dest, w.folder)
		}
		if told := len(w.Notices) == 1; told != (test.folder == "/app" || test.folder == "relative/x") {
			t.Errorf("%s: told %q", test.folder, w.Notices)
		}
	}
}
