package smoke

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/testenv"
)

// devcontainerText is a devcontainer.json that uses most of what is followed; %d is a free port, %s a file that must not appear.
const devcontainerText = `{
	// what a container would be made from is told
	"build": { "dockerfile": "Dockerfile" },
	"initializeCommand": "touch %[2]s",
	"containerUser": "root",
	"remoteUser": "games",
	"workspaceFolder": "/workspaces/${localWorkspaceFolderBasename}",
	"containerEnv": { "PLACE": "${containerWorkspaceFolder}", "PATH": "/extra:${containerEnv:PATH}" },
	"remoteEnv": { "BOTH": "${containerEnv:PLACE}!" },
	"forwardPorts": [%[1]d],
	"mounts": ["type=volume,source=cache,target=/cache/deep"],
	"hostRequirements": { "storage": "9gb" },
	"onCreateCommand": { "first": "id -un > created; pwd >> created", "second": ["touch", "second file"] },
	"updateContentCommand": "cat created 'second file' > updated",
	"postCreateCommand": "printf 'hi\\033[2Jthere\\n'; cp updated post",
	"postStartCommand": "echo start >> starts",
}
`

// perlServer serves one answer after the other on a port.
const perlServer = `perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, LocalPort => %d, ReuseAddr => 1) or die; while ($c = $s->accept) { while (<$c>) { last if /^\r?$/ } print $c "HTTP/1.0 200 OK\r\n\r\nforwarded\n"; close $c }' </dev/null >/dev/null 2>&1 &`

// A repository's devcontainer.json is followed: user, place, environment, port, directories, disk, and commands in their order, those of
// each start at each start.
func TestDevcontainer(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	dir := userRepo(t, w)
	port, canary := testenv.FreePort(t), filepath.Join(w.User.Dir(t), "canary")
	userFile(t, w, filepath.Join(dir, ".devcontainer/devcontainer.json"), fmt.Sprintf(devcontainerText, port, canary))

	r := w.Run("vm", "run", "--name", "devbox", dir, "--", "sh", "-c", `id -un; pwd; cat post; ls; echo "$PLACE $BOTH $PATH"; touch /cache/deep/x && echo cached; cat starts; `+fmt.Sprintf(perlServer, port))
	wantStatus(t, r, 0, "build: no image is built", "initializeCommand: it never runs", `hi\x1b[2Jthere`)
	want := "games\n/workspaces/app\ngames\n/workspaces/app\nREADME\ncreated\ngone\npost\nsecond file\nsrc\nstarts\nupdated\n/workspaces/app /workspaces/app! /extra:/usr/local/sbin:"
	if !strings.HasPrefix(r.Stdout, want) || !strings.HasSuffix(r.Stdout, "\ncached\nstart\n") {
		t.Errorf("in the guest: %q, want %q", r.Stdout, want)
	}
	if strings.Contains(r.Stderr, "\x1b[2J") || strings.Contains(r.Stderr, "asks for") {
		t.Errorf("on standard error: %q", r.Stderr)
	}
	testenv.WaitFor(t, time.Minute, "the forwarded port", func() bool {
		status, body := fetch(t, fmt.Sprintf("http://127.0.0.1:%d/", port), "x")
		return status == 200 && body == "forwarded\n"
	})
	var shown struct {
		Spec struct {
			DiskBytes int64 `json:"disk_bytes"`
		} `json:"spec"`
	}
	w.JSON(&shown, "vm", "show", "devbox")
	if shown.Spec.DiskBytes != 9<<30 {
		t.Errorf("the disk has %d bytes", shown.Spec.DiskBytes)
	}

	// A second VM of the same repository: the port is taken, which is told. A command that fails is, too.
	userFile(t, w, filepath.Join(dir, ".banger.toml"), "[commands]\ncreate = [\"echo own > own\", \"exit 3\"]\n")
	r = w.Run("vm", "run", "--name", "second", dir, "--", "true")
	wantStatus(t, r, 125, "commands.create[1]: it ended with status 3", "which is taken")
	if out := w.Must("vm", "exec", "second", "--", "sh", "-c", "cat own; ls created starts 2>/dev/null; true"); out != "own\n" {
		t.Errorf("in the second VM: %q", out)
	}

	w.Must("vm", "stop", "devbox")
	w.Must("vm", "start", "devbox")
	w.Must("vm", "start", "devbox")
	w.Must("vm", "restart", "devbox")
	w.Must("vm", "stop", "devbox")
	wantStatus(t, w.Run("vm", "ssh", "--start", "devbox", "--", "true"), 1, "postStartCommand: echo start") // games has no login shell
	if out := w.Must("vm", "exec", "devbox", "--", "cat", "starts"); out != "start\nstart\nstart\nstart\n" {
		t.Errorf("after four starts: %q", out)
	}
	if _, err := os.Lstat(canary); err == nil {
		t.Error("initializeCommand ran on the host")
	}
}

// A hostile repository gets nothing of the host without consent, and with it only what was shown.
func TestHostileProject(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Env = append(w.Env, "PROJECT_SECRET=s3cret", "OTHER_SECRET=other")
	dir := userRepo(t, w)
	canary := filepath.Join(w.User.Dir(t), "canary")
	file := filepath.Join(dir, ".devcontainer.json")
	hostile := func(variable string) string {
		return `{"initializeCommand": "touch ` + canary + `", "containerEnv": {"LOOT": "${localEnv:` + variable + `}"}, "forwardPorts": [22]}`
	}
	userFile(t, w, file, hostile("PROJECT_SECRET"))

	run := []string{"vm", "run", "--rm", dir, "--", "sh", "-c", "echo loot=$LOOT"}
	r := w.Run(run...)
	wantStatus(t, r, 6, "PROJECT_SECRET", "127.0.0.1:22", "banger allow "+dir)
	if r.Stdout != "" || strings.Contains(r.Stderr, "s3cret") || len(listVMs(w)) != 0 {
		t.Errorf("without consent: %q, %q, machines %v", r.Stdout, r.Stderr, listVMs(w))
	}
	if out := w.Must("vm", "run", "--rm", "--no-devcontainer", dir, "--", "sh", "-c", "echo loot=$LOOT"); out != "loot=\n" {
		t.Errorf("without the file: %q", out)
	}

	// On a terminal the question is shown with its values escaped, and Enter is a no.
	userFile(t, w, file, `{"containerEnv": {"LOOT": "${localEnv:PROJECT_SECRET}", "X": "${localEnv:A\u001b[2JB}"}}`)
	status, screen := onTerminal(t, w, "\r", run...)
	if status != 6 || !strings.Contains(screen, `A\x1b[2JB`) || strings.Contains(screen, "\x1b[2J") || strings.Contains(screen, "s3cret") {
		t.Errorf("Enter: status %d, %q", status, screen)
	}

	// A yes is remembered, and gives what was shown: a variable, and a copy of a file.
	copied := filepath.Join(w.User.Home, filepath.Base(w.State)+"-copied")
	userFile(t, w, copied, "of the home\n")
	t.Cleanup(func() { os.Remove(copied) })
	userFile(t, w, file, `{"containerEnv": {"LOOT": "${localEnv:PROJECT_SECRET}"}, "mounts": ["type=bind,source=`+copied+`,target=/root/.copied"]}`)
	run[len(run)-1] = "echo loot=$LOOT; cat ~/.copied"
	status, screen = onTerminal(t, w, "y\r", run...)
	if status != 0 || !strings.Contains(screen, "loot=s3cret") || !strings.Contains(screen, "of the home") || !strings.Contains(screen, "~/"+filepath.Base(copied)+" → /root/.copied") {
		t.Errorf("y: status %d, %q", status, screen)
	}
	if out := w.Must(run...); out != "loot=s3cret\nof the home\n" {
		t.Errorf("after the yes: %q", out)
	}
	userFile(t, w, file, hostile("OTHER_SECRET"))
	wantStatus(t, w.Run(run...), 6, "OTHER_SECRET")

	var asked struct{ Digest string }
	if err := json.Unmarshal([]byte(w.Must("allow", "--json", dir)), &asked); err != nil {
		t.Fatal(err)
	}
	userFile(t, w, file, hostile("PROJECT_SECRET"))
	wantStatus(t, w.Run("allow", "--accept", asked.Digest, dir), 4, "not the one")
	wantStatus(t, w.Run(run...), 6, "PROJECT_SECRET")
	if _, err := os.Lstat(canary); err == nil {
		t.Error("initializeCommand ran on the host")
	}
	consents, err := filepath.Glob(filepath.Join(w.State, "allowed", "*.json"))
	if err != nil || len(consents) != 1 {
		t.Fatalf("consents: %v, %v", consents, err)
	}
	text, err := os.ReadFile(consents[0])
	if err != nil || strings.Contains(string(text), "s3cret") || !strings.Contains(string(text), "PROJECT_SECRET") {
		t.Errorf("the consent: %s, %v", text, err)
	}
}

// onTerminal runs banger on a terminal, answers its question, and gives the exit status and all that was shown.
func onTerminal(t *testing.T, w *testenv.World, answer string, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, args...)
	tty, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 30, Cols: 200}, withTerminal(cmd.SysProcAttr))
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	x := watchTerminal(t, tty)
	shown := x.until("[y/N]")
	x.send(answer)
	for b := range x.screen {
		x.seen.Write(b)
	}
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), shown + x.seen.String()
}
