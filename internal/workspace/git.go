package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/proc"
)

// safety is configuration that stands above every repository's own: nothing that a repository says makes git run a program or
// ask the network. What the user has set for all repositories (safe.directory) goes on counting.
var safety = []string{
	"core.fsmonitor=false", "core.hooksPath=/dev/null", "core.attributesFile=/dev/null", "core.sshCommand=false", "core.gitProxy=false",
	"core.editor=false", "core.pager=cat", "core.askPass=", "core.alternateRefsCommand=", "core.untrackedCache=false",
	"diff.external=", "credential.helper=", "log.showSignature=false", "gpg.program=false", "gpg.ssh.program=false",
	"protocol.allow=never", "protocol.file.allow=always", "submodule.recurse=false", "fetch.recurseSubmodules=false",
	"gc.auto=0", "maintenance.auto=false", "uploadpack.packObjectsHook=", "fetch.fsckObjects=true", "transfer.fsckObjects=true",
	"core.deltaBaseCacheLimit=16m", "pack.windowMemory=16m", "pack.threads=1", // memory: git's own limits are for larger machines
	"fetch.writeCommitGraph=false", "core.commitGraph=false", "core.quotePath=false", "advice.detachedHead=false",
}

// git runs host-side git in one repository.
type git struct {
	dir string   // working directory; empty: "/"
	env []string // beside the clean environment: GIT_DIR=…, GIT_INDEX_FILE=…
}

// run runs git with stdin and gives its standard output to stdout.
func (g git) run(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	all := make([]string, 0, 2*len(safety)+len(args)+1)
	all = append(all, "--no-pager")
	for _, setting := range safety {
		all = append(all, "-c", setting)
	}
	dir := g.dir
	if dir == "" {
		dir = "/"
	}
	err := proc.Run(ctx, proc.Command{Path: "git", Args: append(all, args...), Dir: dir, Env: append(cleanEnv(os.Environ()), g.env...), Stdin: stdin, Stdout: stdout})
	if err != nil {
		return fmt.Errorf("git %s: %w", commandOf(args), noSpace(err))
	}
	return nil
}

// commandOf gives the command among git's arguments.
func commandOf(args []string) string {
	for len(args) > 2 && strings.HasPrefix(args[0], "-") {
		args = args[2:]
	}
	return args[0]
}

// noSpace finds a full disk or quota in what git says, which may have said more since.
func noSpace(err error) error {
	if exit, ok := errors.AsType[*proc.ExitError](err); ok {
		for words, cause := range map[string]error{"No space left on device": unix.ENOSPC, "Out of diskspace": unix.ENOSPC, "Disk quota exceeded": unix.EDQUOT} {
			if strings.Contains(exit.Stderr, words) {
				return fmt.Errorf("%w: %w", cause, err)
			}
		}
	}
	return err
}

// output is run for what prints little.
func (g git) output(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := g.run(ctx, nil, &out, args...)
	return out.String(), err
}

// line is output without the newline at its end.
func (g git) line(ctx context.Context, args ...string) (string, error) {
	text, err := g.output(ctx, args...)
	return strings.TrimSuffix(text, "\n"), err
}

// each runs git and gives what it prints record by record, of which each ends with a NUL. It ends with the first error of take.
func (g git) each(ctx context.Context, take func(record string) error, args ...string) error {
	out := &records{take: take}
	err := g.run(ctx, nil, out, args...)
	if out.err != nil {
		return out.err
	}
	return err
}

// records takes apart what is written to it.
type records struct {
	take func(string) error
	rest []byte // of a record that has not ended
	err  error
}

func (r *records) Write(p []byte) (int, error) {
	done := len(p)
	for r.err == nil {
		record, after, ended := bytes.Cut(p, []byte{0})
		if !ended {
			r.rest = append(r.rest, p...)
			return done, nil
		}
		r.err = r.take(string(append(r.rest, record...)))
		r.rest, p = r.rest[:0], after
	}
	return 0, r.err
}

// ask is line for a question that git answers with "no" by exit status 1 or 128: that is the empty answer.
func (g git) ask(ctx context.Context, args ...string) (string, error) {
	text, err := g.line(ctx, args...)
	if exit, ok := errors.AsType[*proc.ExitError](err); ok && (exit.Status == 1 || exit.Status == 128) {
		return "", nil
	}
	return text, err
}

// cleanEnv leaves out what would point git at another repository or make it run programs.
func cleanEnv(env []string) []string {
	clean := []string{"GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_ATTR_NOSYSTEM=1",
		"GIT_ASKPASS=", "SSH_ASKPASS=", "LC_ALL=C"}
	for _, assignment := range env {
		name, _, _ := strings.Cut(assignment, "=")
		if strings.HasPrefix(name, "GIT_") || name == "SSH_ASKPASS" || strings.HasPrefix(name, "LC_") || name == "LANG" || name == "LANGUAGE" {
			continue
		}
		clean = append(clean, assignment)
	}
	return clean
}

// gitFailed gives an error of git's own the words of what was tried.
func gitFailed(op, subject string, err error) error {
	kind := banger.ErrUnavailable
	if errors.Is(err, banger.ErrInterrupted) {
		kind = banger.ErrInterrupted
	}
	return &banger.Error{Kind: kind, Op: op, Subject: subject, Err: err, Hint: banger.HintOf(err)}
}

// spaceIn tells a full file system of the host as such. git does not always know why a write failed: then what is left tells.
func spaceIn(dir string, err error) error {
	if _, ok := errors.AsType[*proc.ExitError](err); ok && !errors.Is(err, unix.ENOSPC) {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < leastSpace {
			err = fmt.Errorf("%w: %w", unix.ENOSPC, err)
		}
	}
	return banger.SpaceError(err, dir)
}

// leastSpace is so little, in bytes, that git's own files do not fit.
const leastSpace = 64 << 10
