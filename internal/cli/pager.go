package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"banger/internal/proc"
)

// paged shows what write writes: on a terminal through $BANGER_PAGER, $PAGER or less, whichever is first and there; elsewhere and with
// --no-pager plainly. A pager that is left early is no error.
func (a *app) paged(ctx context.Context, write func(w io.Writer, color bool) error) error {
	pager := strings.Fields(cmp.Or(os.Getenv("BANGER_PAGER"), os.Getenv("PAGER"), "less"))
	_, onTerminal := terminal(a.Out)
	color := onTerminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if !onTerminal || a.noPager || len(pager) == 0 || pager[0] == "cat" {
		return write(a.Out, color)
	}
	if _, err := proc.LookPath(pager[0]); err != nil {
		return write(a.Out, color)
	}
	env := os.Environ()
	if os.Getenv("LESS") == "" {
		env = append(env, "LESS=FRX") // colours pass, and what fits is shown without waiting
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(w, color)
		w.CloseWithError(err)
		written <- err
	}()
	err := proc.Run(ctx, proc.Command{Path: pager[0], Args: pager[1:], Env: env, Stdin: r, Stdout: a.Out, Stderr: a.Err, Foreground: true})
	r.CloseWithError(errPagerLeft)
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, errPagerLeft) && !errors.Is(writeErr, syscall.EPIPE) {
		return writeErr
	}
	return err
}

var errPagerLeft = errors.New("the pager was left")
