package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/internal/statedir"
	"banger/internal/transfer"
	"banger/internal/twoway"
	"banger/internal/workspace"
)

type watchFlags struct {
	guestPath string
	accept    []string
	deletions bool
}

func (a *app) workspaceWatch() *cobra.Command {
	var flags watchFlags
	cmd := &cobra.Command{
		Use: "watch [flags] VM", Short: "keep the files of a repository alike here and in a VM", Args: oneVM,
		Long: `As long as this runs, a file that is made, edited or removed on one side changes on the other within a second: tracked and untracked
ones, not what git ignores and not .git. It begins with what was done on either side since the last time, or since the repository went in.

A file that was edited on both sides is kept twice: the version here keeps its name, the other one becomes NAME.conflict-guest-TIME, on both
sides. What was edited on one side and removed on the other comes back.

Files that programs here run or obey by themselves (.envrc, .vscode, .husky, .gitignore and the like) come out of the VM only when you
have agreed: on a terminal you are asked, elsewhere --accept names them.`,
		Example: `  banger workspace watch devbox
  banger workspace watch devbox --accept .vscode --accept .gitignore
  banger workspace watch --json devbox                  each event as a line of JSON`,
		ValidArgsFunction: a.completeVMs(1, banger.StateRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, name := range flags.accept {
				if flags.accept[i] = strings.TrimSuffix(strings.TrimPrefix(name, "./"), "/"); flags.accept[i] == "" {
					return inputError(cmd, "--accept %q: want a path in the repository", name)
				}
			}
			return a.watch(cmd.Context(), args[0], flags)
		},
	}
	addGuestPath(cmd, &flags.guestPath)
	cmd.Flags().StringArrayVar(&flags.accept, "accept", nil, "take this `path` out of the VM although programs here obey it, and what is below it (repeatable)")
	cmd.Flags().BoolVar(&flags.deletions, "allow-deletions", false, "go on when most of the files have been removed on one side")
	return cmd
}

func (a *app) watch(ctx context.Context, ref string, flags watchFlags) error {
	vm, err := a.show(ctx, ref)
	if err != nil {
		return err
	}
	ws, err := workspaceOf(vm, flags.guestPath)
	if err != nil {
		return err
	}
	if vm.State != banger.StateRunning {
		return notRunning(vm.Spec.Name, vm.State)
	}
	repo, err := workspace.Inspect(ctx, ws.HostPath)
	if err != nil {
		return err
	}
	if repo.Root != ws.HostPath {
		return &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: ws.HostPath, Err: errors.New("the repository that it came from is not there")}
	}
	dir := statedir.VMDir{Path: vm.Dir}
	record, err := workspace.ReadRecord(dir.Workspace(ws.GuestPath))
	if err != nil && !errors.Is(err, banger.ErrNotFound) {
		return err
	}
	base, err := twoway.OpenBase(dir.Watch(ws.GuestPath), ws.HostPath, ws.GuestPath)
	if err != nil {
		return err
	}
	defer base.Close()
	if base.New() && record.Head != "" && repo.Head != record.Head {
		a.notice("the repository here is at %.12s, what went in was %.12s: files that have changed since go in", or(repo.Head, "-"), record.Head)
	}
	host, err := twoway.OpenLocal(repo.Root, twoway.HostSide, nil)
	if err != nil {
		return err
	}
	defer host.Close()
	guest, err := a.watchGuest(ctx, vm, ws.GuestPath)
	if err != nil {
		return err
	}
	defer guest.Close()
	show, end := a.progress()
	compared := sync.OnceFunc(show.Begin("workspace", "comparing "+repo.Root+" with "+vm.Spec.Name+":"+ws.GuestPath))
	defer end()
	view, asking := a.watchView(vm.Spec.Name, ws)
	tell := func(e twoway.Event) {
		compared()
		view(e)
	}
	engine := twoway.NewEngine(twoway.Config{Host: host, Guest: guest, Base: base, Sent: sentFiles(record), Excluded: repo.Excluded, Accept: flags.accept, Deletions: flags.deletions, Tell: tell, Now: a.now})
	if asking != nil {
		go a.askAccept(ctx, engine, asking)
	}
	err = engine.Run(ctx)
	if errors.Is(err, banger.ErrUnavailable) && ctx.Err() == nil {
		if now, showErr := a.show(context.WithoutCancel(ctx), string(vm.ID)); showErr == nil && now.State != banger.StateRunning {
			return &banger.Error{Kind: banger.ErrUnavailable, Op: "watch", Subject: vm.Spec.Name, Err: fmt.Errorf("it is %s now", now.State),
				Hint: "nothing is lost: banger vm start " + vm.Spec.Name + ", then watch it again"}
		}
	}
	return err
}

// watchGuest has the agent of a running VM keep a directory.
func (a *app) watchGuest(ctx context.Context, vm api.VMDetail, dir string) (*twoway.Remote, error) {
	conn, err := a.files(ctx, vm)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r, err := transfer.AskWatch(conn, dir)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return twoway.NewRemote(conn, r), nil
}

// sentFiles gives what went in.
func sentFiles(record workspace.Record) map[string]twoway.Sent {
	sent := map[string]twoway.Sent{}
	for name, file := range record.Sent {
		if !file.Absent {
			sent[name] = twoway.Sent{Blob: file.ID, Exec: file.Mode == 0o100755, Link: file.Mode == 0o120000}
		}
	}
	return sent
}

// watchView gives what shows events. asking, if somebody can be asked, gets those that wait for an answer.
func (a *app) watchView(vm string, ws banger.Workspace) (tell func(twoway.Event), asking chan twoway.Event) {
	if a.json {
		return func(e twoway.Event) { _ = a.printLine(e) }, nil // who reads no more ends us
	}
	if a.interactive() {
		asking = make(chan twoway.Event, maxAsked)
	}
	return func(e twoway.Event) {
		if e.Event == twoway.Ready {
			a.notice("%s and %s:%s are alike, and stay so until you press Ctrl-C", ws.HostPath, vm, ws.GuestPath)
			return
		}
		fmt.Fprintln(a.Out, escape(watchLine(e)))
		if e.Event == twoway.HeldBack && asking != nil {
			select {
			case asking <- e:
			default: // it is told when the next watch begins
			}
		}
	}, asking
}

// maxAsked bounds how many questions wait.
const maxAsked = 100

// watchLine is one line: "12:04:05 in   src/main.c".
func watchLine(e twoway.Event) string {
	way, editor, remover := "in ", "here", "in the VM"
	if e.From == twoway.GuestSide {
		way, editor, remover = "out", remover, editor
	}
	text := ""
	switch e.Event {
	case twoway.Written:
		text = way + "  " + e.Path
	case twoway.Removed:
		text = way + "  " + e.Path + " (removed)"
	case twoway.Revived:
		text = fmt.Sprintf("%s  %s: edited %s, removed %s: it is back", way, e.Path, editor, remover)
	case twoway.Conflict:
		text = fmt.Sprintf("conflict  %s: the version of the %s stays, the other one is %s", e.Path, e.From, e.KeptAs)
	case twoway.HeldBack:
		text = fmt.Sprintf("held back  %s: %s (--accept %s takes it)", e.Path, e.Reason, e.Path)
	case twoway.LeftOut:
		text = fmt.Sprintf("left out  %s: %s", e.Path, e.Reason)
	}
	return e.Time.Local().Format(time.TimeOnly) + " " + text
}

// askAccept asks about files that are held back, one after the other.
func (a *app) askAccept(ctx context.Context, engine *twoway.Engine, asking <-chan twoway.Event) {
	in := bufio.NewReader(a.In)
	for {
		select {
		case e := <-asking:
			verb := "write"
			if e.Seen.Kind == twoway.None {
				verb = "remove"
			}
			fmt.Fprintf(a.Err, "%s %s here as in the VM? [y/N] ", verb, escape(e.Path))
			line, err := in.ReadString('\n')
			if yes := strings.ToLower(strings.TrimSpace(line)); yes == "y" || yes == "yes" {
				engine.Accept(e.Path, e.Seen)
			}
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
