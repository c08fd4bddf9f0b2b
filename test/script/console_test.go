package script

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"banger"
	"banger/internal/machine"
)

// serve answers on machine.sock: it has the console, and commands that only tell what they are.
func (r *run) serve() {
	for {
		conn, err := r.l.AcceptUnix()
		if err != nil {
			return
		}
		go r.answer(conn)
	}
}

func (r *run) answer(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	req, err := machine.ReadRequest(in)
	if err == nil && req.Connect != nil {
		serveFiles(conn, in)
		return
	}
	if err == nil && req.Init != nil {
		status := r.status()
		machine.WriteResponse(conn, machine.Response{Status: &status})
		return
	}
	if err == nil && req.Exec != nil {
		machine.ServeExec(conn, in, func(_ context.Context, stdio machine.Stdio) (banger.ExecResult, error) {
			return pretend(*req.Exec, stdio.Stdout)
		})
		return
	}
	if err == nil && req.Console != nil {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			io.Copy(io.Discard, in)
			cancel()
		}()
		from, _ := r.ring.Start(*req.Console)
		machine.WriteResponse(conn, machine.Response{Console: &machine.ConsoleAnswer{From: from}})
		if req.Console.Follow {
			r.ring.Follow(ctx, from, conn)
		} else {
			r.ring.Copy(from, conn)
		}
		return
	}
	io.Copy(io.Discard, in)
}

// pretend tells what would be run. What names "fail" fails.
func pretend(req banger.ExecRequest, out io.Writer) (result banger.ExecResult, err error) {
	if strings.Contains(strings.Join(req.Argv, " "), "fail") {
		result.Status = 3
	}
	_, err = fmt.Fprintf(out, "ran %q in %s\n", req.Argv, req.HomeDir)
	return result, err
}

func (w *world) run(name string) (banger.VM, *run, error) {
	vm, err := w.db.Get(context.Background(), name)
	if err != nil {
		return vm, nil, err
	}
	r, err := machines{w}.get(vm.ID)
	return vm, r, err
}

// print writes on the console of a VM.
func (w *world) print(name, text string) error {
	_, r, err := w.run(name)
	if err == nil {
		_, err = fmt.Fprintf(r.ring, "%s\n", text)
	}
	return err
}

// reboot is a guest's own. It returns when the next run is there.
func (w *world) reboot(name string) error {
	vm, r, err := w.run(name)
	if err != nil {
		return err
	}
	r.end(banger.ExitReboot, "")
	for {
		changed := w.db.Changed()
		now, err := w.db.Get(context.Background(), name)
		if err != nil || now.Boots > vm.Boots {
			return err
		}
		<-changed
	}
}

// console and reboot are commands of a script.
func console(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: console NAME TEXT...")
	}
	ts.Check(ts.Value("world").(*world).print(args[0], strings.Join(args[1:], " ")))
}

func reboot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: reboot NAME")
	}
	ts.Check(ts.Value("world").(*world).reboot(args[0]))
}
