// Package script holds scenarios of the command line: the real banger, daemon, lifecycle and store, with machines that are
// stand-ins. Each file in testdata is one scenario.
package script

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/cli"
	"banger/internal/schema"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"banger": func() {
			os.Exit(cli.Run(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
				cli.Build{Version: "v0", Commit: "0000", Built: "2026-01-01T00:00:00Z"}))
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			state := filepath.Join(env.WorkDir, "s")
			w, err := newWorld(state, env.WorkDir)
			if err != nil {
				return err
			}
			env.Defer(w.close)
			env.Setenv("BANGER_STATE_DIR", state)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PROJECT_TOKEN", "s3cret")
			env.Values["world"] = w
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"release": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 0 {
					ts.Fatalf("usage: release")
				}
				close(ts.Value("world").(*world).slow)
			},
			"console": console,
			"digest":  digest,
			"reboot":  reboot,
			"fits":    fits,
			"crash": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: crash NAME")
				}
				ts.Check(ts.Value("world").(*world).crash(args[0]))
			},
		},
	})
}

// digest sets $DIGEST to what the last command told.
func digest(ts *testscript.TestScript, _ bool, _ []string) {
	var told struct{ Digest string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &told))
	ts.Setenv("DIGEST", told.Digest)
}

// fits runs a command with --json and checks what it writes against the type that it says its data have: fits 'vm list' --all.
func fits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fits COMMAND [ARG...]")
	}
	ts.Check(ts.Exec("banger", slices.Concat(strings.Fields(args[0]), args[1:], []string{"--json"})...))
	of, ok := cli.OutputOf(slices.Concat(strings.Fields(args[0]), args[1:]))
	if !ok {
		ts.Fatalf("%s has no data", args[0])
	}
	schemas, err := schema.New("", "#/$defs/")
	ts.Check(err)
	value := schemas.Of(of.Of)
	document, err := json.Marshal(map[string]any{"$defs": schemas.Definitions, "value": value})
	ts.Check(err)
	text := []byte(ts.ReadFile("stdout"))
	for _, part := range values(text, of.Lines) {
		if err := schema.Check(document, "/value", part); err != nil {
			ts.Fatalf("banger %s: %v\n%s", strings.Join(args, " "), err, part)
		}
	}
}

// values are the JSON values in an output.
func values(text []byte, lines bool) [][]byte {
	if !lines {
		return [][]byte{text}
	}
	return bytes.Split(bytes.TrimSpace(text), []byte("\n"))
}
