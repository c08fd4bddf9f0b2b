package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"banger"
	"banger/api"
	"banger/internal/machine"
	"banger/internal/tooling"
)

// detectTools finds out which tools each repository wants, from the files that travel.
func detectTools(ctx context.Context, plans []planned) {
	for i, p := range plans {
		plans[i].tools = tooling.Detect(func(name string) ([]byte, error) { return p.Content(ctx, name, tooling.MaxFile) })
	}
}

// wantsTools tells whether there is anything to install.
func wantsTools(plans []planned) bool {
	for _, p := range plans {
		if !p.tools.Empty() {
			return true
		}
	}
	return false
}

// toolText says what would be installed for a repository.
func toolText(p tooling.Plan) string {
	var parts []string
	if len(p.Mise) > 0 {
		parts = append(parts, "mise install ("+strings.Join(p.Mise, ", ")+")")
	}
	for _, tool := range p.Tools {
		parts = append(parts, fmt.Sprintf("%s (%s)", tool, tool.From))
	}
	return strings.Join(parts, ", ")
}

// checkToolNet refuses, before there is a VM, to install what its network can't reach.
func (a *app) checkToolNet(ctx context.Context, plans []planned, change banger.NetChange) error {
	if !wantsTools(plans) {
		return nil
	}
	policy := banger.NetFull
	if !change.Set.Given {
		c, err := a.dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		list, err := c.Settings(ctx)
		if err != nil {
			return err
		}
		if text := setting(list, "vm_defaults.net").Value; text != "" {
			if policy, err = banger.ParseNetPolicy(text); err != nil {
				return err
			}
		}
	}
	policy, err := change.Apply(policy)
	if err != nil || policy.Open || len(policy.Allow) > 0 {
		return err
	}
	for _, p := range plans {
		if !p.tools.Empty() {
			return &banger.Error{Kind: banger.ErrRefused, Op: "install tools for", Subject: p.Repo.Root, Err: fmt.Errorf("it wants %s, and the VM would have no network", toolText(p.tools)),
				Hint: "--no-bootstrap to go without them, or --net full"}
		}
	}
	return nil
}

// toolScript runs in the VM: $1 is the log's name, $2 how, $3 how many files of mise there are; what follows are tools with their versions.
// It is the same text always: what comes from the repository are its arguments.
const toolScript = `
command -v mise > /dev/null 2>&1 || exit 127
dir="$HOME/.cache/banger"; log="$dir/$1"; how="$2"; own="$3"; shift 3
mkdir -p "$dir" && : > "$log" || exit 125
work() {
	status=0
	mise trust --quiet --all
	if [ "$own" != 0 ]; then
		echo "+ mise install"
		mise install || status=1
	fi
	for tool; do
		echo "+ mise use --global --pin $tool"
		mise use --global --pin "$tool" || status=1
	done
	echo "banger: done with status $status"
	return $status
}
if [ "$how" = background ]; then
	(trap '' HUP; work "$@") >> "$log" 2>&1 < /dev/null &
	exit 0
fi
{ work "$@"; echo $? > "$log.status"; } 2>&1 < /dev/null | tee "$log"
read -r status < "$log.status"
rm -f "$log.status"
exit "$status"
`

const (
	toolsInForeground = "foreground"
	toolsInBackground = "background"
)

// toolLog names the log of a repository.
func toolLog(p planned) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, path.Base(p.Repo.Root))
	return "vm-run-tooling-" + name[:min(len(name), 100)] + ".log"
}

// bootstrap has mise install in the VM what the repositories want. That it can't, or that it fails, is told; the VM is of use all the same.
// Errors: ErrInterrupted; ErrUnavailable when the VM is gone.
func (a *app) bootstrap(ctx context.Context, vm api.VMDetail, plans []planned, req banger.ExecRequest, how string) error {
	for _, p := range plans {
		for _, notice := range p.tools.Notices {
			a.notice("%s", notice)
		}
		if p.tools.Empty() {
			continue
		}
		if err := a.bootstrapOne(ctx, vm, p, req, how); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) bootstrapOne(ctx context.Context, vm api.VMDetail, p planned, req banger.ExecRequest, how string) error {
	home := "~"
	if banger.IsRoot(vm.User) {
		home = "/root"
	}
	log := home + "/.cache/banger/" + toolLog(p)
	req.Dir = p.dest
	req.Argv = []string{"sh", "-c", toolScript, "banger", toolLog(p), how, strconv.Itoa(len(p.tools.Mise))}
	for _, tool := range p.tools.Tools {
		req.Argv = append(req.Argv, tool.String())
	}
	show, end := a.progress()
	text := "installing " + toolText(p.tools)
	done := show.Begin("tools", text)
	said := &lastLine{tell: func(line string) { show.Report(banger.Progress{Stage: "tools", Text: text, Detail: line}) }}
	result, err := a.machine(vm).Exec(ctx, req, machine.Stdio{Stdout: said, Stderr: said})
	done()
	end()
	switch status := result.ExitStatus(); {
	case errors.Is(err, banger.ErrUnavailable):
		return a.whyGone(vm, err)
	case err != nil:
		return err
	case status == 127:
		a.notice("there is no mise in the VM: %s is not installed (an image with mise: debian-bookworm; without this notice: --no-bootstrap)", toolText(p.tools))
	case status != 0:
		a.notice("not all tools are installed: look at %s in the VM", log)
	case how == toolsInBackground:
		a.notice("%s goes on in the VM: tail -f %s", text, log)
	default:
		a.notice("tools are installed; the log is %s in the VM", log)
	}
	return nil
}

// lastLine tells each line that is written to it, up to a bound; it keeps none.
type lastLine struct {
	tell func(string)
	line []byte
}

const maxDetail = 200 // bytes

func (l *lastLine) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte{'\n'})
		l.line = append(l.line, part[:min(len(part), maxDetail-len(l.line))]...)
		if whole {
			l.tell(strings.TrimSpace(string(l.line)))
			l.line = l.line[:0]
		}
		rest = after
	}
	return len(p), nil
}
