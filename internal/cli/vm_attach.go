package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger"
	"banger/internal/machine"
)

// detachKey is Ctrl-], as in telnet: it ends the attachment and never reaches the VM.
const detachKey = 0x1d

var errDetached = errors.New("detached")

func (a *app) vmAttach() *cobra.Command {
	return &cobra.Command{
		Use: "attach VM", Short: "connect this terminal with a VM's console", Args: oneVM,
		Long: `What the VM writes to its serial console appears here, and what you type goes there, every key but Ctrl-], which detaches. Images with
an init of their own may ask for a login there; others show the kernel's words only. For a shell: banger vm shell.

The console's bytes reach your terminal as they are. "vm logs" shows them escaped.`,
		Example:           "  banger vm attach devbox",
		ValidArgsFunction: a.completeVMs(1, banger.StateRunning, banger.StateStarting),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, err := a.show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if vm.State != banger.StateRunning && vm.State != banger.StateStarting {
				return notRunning(vm.Spec.Name, vm.State)
			}
			a.notice("attached to the console of %s; detach with Ctrl-]", vm.Spec.Name)
			err = a.attachConsole(cmd.Context(), a.machine(vm))
			if errors.Is(err, errDetached) {
				a.notice("detached; vm %s goes on", vm.Spec.Name)
				return nil
			}
			return err
		},
	}
}

// attachConsole returns when the run has ended, our input has, or the detach key was pressed.
func (a *app) attachConsole(ctx context.Context, client machine.Client) error {
	conn, err := client.Attach(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	keys := io.Reader(a.In)
	if fd, ok := terminal(a.In); ok {
		before, err := term.MakeRaw(fd)
		if err != nil {
			return &banger.Error{Op: "put the terminal into raw mode", Err: err}
		}
		defer func() { _ = term.Restore(fd, before) }()
		defer a.signals.redirect(func(os.Signal) { cancel(errSignal) })()
		keys = &untilDetached{a.In}
	}
	go func() {
		_, err := io.Copy(conn, keys)
		cancel(err)
	}()
	_, err = io.Copy(a.Out, conn)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if ctx.Err() != nil {
		return nil // our input has ended
	}
	return err
}

// untilDetached ends with errDetached at the detach key.
type untilDetached struct{ r io.Reader }

func (u *untilDetached) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if i := bytes.IndexByte(p[:n], detachKey); i >= 0 {
		return i, errDetached
	}
	return n, err
}
