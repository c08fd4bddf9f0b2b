package cli

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// run runs banger with no terminal and no daemon within reach.
func run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	t.Setenv("BANGER_STATE_DIR", t.TempDir()+"/s")
	var out, errs bytes.Buffer
	status = Run(t.Context(), args, Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, banger.Build{Version: "v1", Commit: "0123456789abcdef", Built: "2026-01-02T03:04:05Z"})
	return status, out.String(), errs.String()
}

func TestCommandTree(t *testing.T) {
	root := (&app{build: banger.Build{Version: "v1"}}).rootCommand()
	var b strings.Builder
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		b.WriteString(cmd.CommandPath())
		for _, alias := range cmd.Aliases {
			b.WriteString(" | " + alias)
		}
		cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			b.WriteString(" --" + f.Name)
			if f.Shorthand != "" {
				b.WriteString("/-" + f.Shorthand)
			}
		})
		b.WriteByte('\n')
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	golden(t, "tree.txt", b.String())
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"vm"}, {"vm", "run", "--help"}, {"image"}, {"kernel"}, {"daemon"}} {
		status, stdout, stderr := run(t, args...)
		if status != 0 || stderr != "" {
			t.Errorf("banger %q: status %d, stderr %q", args, status, stderr)
		}
		name := strings.ReplaceAll(strings.Join(append([]string{"help"}, args...), "-"), "---help", "")
		golden(t, name+".txt", stdout)
		for _, line := range strings.Split(stdout, "\n") {
			if len(line) > 132 {
				t.Errorf("banger %q: help has a line of %d characters: %s", args, len(line), line)
			}
		}
	}
}

// Mistakes are found before a daemon is asked: none runs here.
func TestUsageErrors(t *testing.T) {
	for _, tc := range []struct {
		args   string
		stderr []string
	}{
		{"vm crate", []string{`"crate"`, "did you mean banger vm create?"}},
		{"sv", []string{`"sv"`}},
		{"completion csh", []string{`"csh"`}},
		{"vm create --imag x", []string{"--imag", "did you mean --image?"}},
		{"vm create extra", []string{`"extra"`, "usage: banger vm create"}},
		{"vm create --name No_Good", []string{"No_Good", "a-z"}},
		{"vm create --name=", []string{"--name"}},
		{"vm create --image=", []string{"--image"}},
		{"vm create --vcpu 0", []string{"vcpu 0"}},
		{"vm create --vcpu x", []string{`--vcpu "x"`, "number"}},
		{"vm create --memory 10", []string{"memory 10 MiB", "64"}},
		{"vm create --memory 1X", []string{"--memory", `"1X"`}},
		{"vm create --memory -5", []string{"memory -5 MiB"}},
		{"vm create --memory 9999T", []string{"memory", "want 64 to"}},
		{"vm create --disk-size 1K", []string{"disk size 1 KiB"}},
		{"vm create --disk-size 8X", []string{`"8X"`, "8G"}},
		{"vm create --disk-size 17T", []string{"disk size"}},
		{"vm create --label nokey", []string{"--label", "KEY=VALUE"}},
		{"vm create --label -=x", []string{"label"}},
		{"vm create --env A-B=1", []string{"A-B"}},
		{"vm create --env BANGER_TEST_UNSET", []string{"BANGER_TEST_UNSET is not set"}},
		{"vm create --env-file /no/such/file", []string{"/no/such/file"}},
		{"vm run image:tag", []string{"image:tag", "--image image:tag"}},
		{"vm run --", []string{"no command after --"}},
		{"vm exec", []string{"usage: banger vm exec"}},
		{"vm exec box", []string{"banger vm shell box"}},
		{"vm exec box ls", []string{"--"}},
		{"vm exec box --", []string{"no command after --"}},
		{"vm exec one two -- ls", []string{"one VM"}},
		{"vm shell", []string{"one VM"}},
		{"vm start", []string{"name of a VM"}},
		{"vm stop --timeout 0 box", []string{"--timeout"}},
		{"vm stop --timeout soon box", []string{"--timeout"}},
		{"vm set box", []string{"nothing to change", "--memory 4G"}},
		{"vm set --vcpu 2", []string{"name of a VM"}},
		{"vm set --memory 10 box", []string{"memory 10 MiB"}},
		{"vm set --label nokey box", []string{"KEY=VALUE"}},
		{"vm run --net ful", []string{"--net", "at character 1", "want \"full\"", "for example: full"}},
		{"vm run --net allow=a,10.0.0.0/33", []string{"at character 9", "\n          ^"}},
		{"vm run --nat --net none", []string{"--nat and --net none exclude each other"}},
		{"vm create --allow-host 0", []string{"--allow-host", "1 to 65535"}},
		{"vm kill --signal TRM box", []string{"did you mean TERM"}},
		{"vm net", []string{"name of a VM"}},
		{"vm net box alow x", []string{"did you mean banger vm net box allow"}},
		{"vm net box show x", []string{"takes no argument"}},
		{"vm net box allow", []string{"allow wants a rule"}},
		{"vm net box allow a:b", []string{"port \"b\""}},
		{"vm net box set", []string{"set wants one policy"}},
		{"vm net box set allow=-", []string{"at character 7"}},
		{"vm net box show -f", []string{"are for log"}},
		{"vm rename box", []string{"new name"}},
		{"vm rename box No_Good", []string{"No_Good", "a-z"}},
		{"vm kill --signal 99 box", []string{"--signal", `"99"`}},
		{"vm wait --for stoped box", []string{"--for", "stopped"}},
		{"vm list --filter state", []string{"KEY=VALUE"}},
		{"vm prune --filter nme=x", []string{"did you mean name"}},
		{"version extra", []string{`"extra"`}},
		{"version --quiet --verbose", []string{"--quiet", "--verbose"}},
	} {
		status, stdout, stderr := run(t, strings.Fields(tc.args)...)
		if status != statusUsage || stdout != "" {
			t.Errorf("banger %s: status %d, stdout %q, want 2 and nothing", tc.args, status, stdout)
		}
		if !strings.HasPrefix(stderr, "banger: ") {
			t.Errorf("banger %s: stderr %q does not begin with banger:", tc.args, stderr)
		}
		for _, text := range tc.stderr {
			if !strings.Contains(stderr, text) {
				t.Errorf("banger %s: stderr has no %q:\n%s", tc.args, text, stderr)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	const line = "banger v1 (commit 0123456789ab, built 2026-01-02T03:04:05Z)\n"
	for _, args := range []string{"version", "--version", "version --quiet"} {
		if status, stdout, _ := run(t, strings.Fields(args)...); status != 0 || stdout != line {
			t.Errorf("banger %s = %q, status %d, want %q", args, stdout, status, line)
		}
	}
	_, stdout, _ := run(t, "version", "--json")
	if !strings.Contains(stdout, `"commit": "0123456789abcdef"`) {
		t.Errorf("version --json = %s", stdout)
	}
}

func TestJSONErrors(t *testing.T) {
	status, _, stderr := run(t, "vm", "create", "--vcpu", "x", "--json")
	want := `{"kind":"invalid","message":"--vcpu \"x\": want a number","hint":"see: banger vm create --help"}` + "\n"
	if status != statusUsage || stderr != want {
		t.Errorf("status %d, stderr %s, want %s", status, stderr, want)
	}
}

func TestStatusOf(t *testing.T) {
	kind := func(k error) error { return fmt.Errorf("more: %w", &banger.Error{Kind: k, Err: errors.New("x")}) }
	for _, tc := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), 1},
		{kind(banger.ErrInvalid), 2},
		{kind(banger.ErrNotFound), 3},
		{kind(banger.ErrConflict), 4},
		{kind(banger.ErrUnavailable), 5},
		{kind(banger.ErrRefused), 6},
		{kind(banger.ErrCorrupt), 1},
		{errSignal, 130},
		{streamError{kind(banger.ErrNotFound)}, 125},
		{streamError{errors.New("x")}, 125},
		{streamError{kind(banger.ErrInvalid)}, 2},
		{streamError{errSignal}, 130},
		{commandExit{status: 42}, 42},
		{commandExit{127, kind(banger.ErrNotFound)}, 127},
		{failures{kind(banger.ErrConflict), kind(banger.ErrNotFound)}, 4},
		{failures{commandExit{status: 7}, streamError{errors.New("x")}}, 7},
	} {
		if got := statusOf(tc.err); got != tc.want {
			t.Errorf("statusOf(%v) = %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestShowError(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&banger.Error{Op: "start vm", Subject: "x", Err: errors.New("no"), Hint: "do y", OpID: "op-1"}, "banger: start vm x: no (op-1)\nhint: do y\n"},
		{errors.New("two\nlines\x1b[2J"), "banger: two\n  lines\\x1b[2J\n"},
		{errSignal, "banger: interrupted\n"},
		{commandExit{status: 3}, ""},
	} {
		var b bytes.Buffer
		(&app{Streams: Streams{Err: &b}}).showError(tc.err)
		if b.String() != tc.want {
			t.Errorf("showError(%v) = %q, want %q", tc.err, b.String(), tc.want)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünï 日本": "plain ünï 日本", "\x1b[31mred": `\x1b[31mred`, "a\nb\tc": `a\nb\tc`, "\xff\xfe": `\xff\xfe`,
		"\u202eevil": `\u202eevil`, "\u200b": `\u200b`, "\u009b31m": `\u009b31m`, "\x00": `\x00`, "\x7f": `\x7f`, "\ufffd": "\ufffd",
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("\x1b]0;title\x07", "x")
	f.Add("é\xc3", "\x9b\r\n")
	f.Fuzz(func(t *testing.T, first, second string) {
		for _, r := range escape(first + second) {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e {
				t.Fatalf("escape(%q) lets %#x through", first+second, r)
			}
		}
		var whole, parts bytes.Buffer
		w := &safeWriter{w: &whole}
		w.Write([]byte(first + second))
		w.Close()
		p := &safeWriter{w: &parts}
		p.Write([]byte(first))
		p.Write([]byte(second))
		p.Close()
		if whole.String() != parts.String() {
			t.Fatalf("%q and %q: %q in one piece, %q in two", first, second, &whole, &parts)
		}
	})
}

func TestAgoAndSeconds(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := ago(now, now.Add(-3*time.Minute)); got != "3 minutes ago" {
		t.Errorf("ago = %q", got)
	}
	if got := ago(now, time.Time{}); got != "-" {
		t.Errorf("ago of no time = %q", got)
	}
	for d, want := range map[time.Duration]string{1900 * time.Millisecond: "1.9s", 125 * time.Second: "2m05s", 41*time.Second + 240*time.Millisecond: "41.2s"} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestMistypedVariable(t *testing.T) {
	const warning = "banger: the variable \"BANGER_VM_DEFAULT_MEMORY\" sets nothing: did you mean BANGER_VM_DEFAULTS_MEMORY?\n"
	t.Setenv("BANGER_VM_DEFAULT_MEMORY", "4G")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"version"}, warning},
		{[]string{"version", "--json"}, ""},
		{[]string{"__complete", "vm", "ru"}, ""},
	} {
		if _, _, stderr := run(t, tc.args...); strings.Contains(stderr, "banger: the variable") != (tc.want != "") || !strings.HasPrefix(stderr, tc.want) {
			t.Errorf("%q: standard error %q, want %q", tc.args, stderr, tc.want)
		}
	}
}
