package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"banger/internal/proc"
)

// paged shows what write writes: on a terminal through $PAGER, or less if it is there, else plainly. A pager that is left early is no
// error.
func (a *app) paged(ctx context.Context, write func(w io.Writer, color bool) error) error {
	pager := strings.Fields(os.Getenv("PAGER"))
	if len(pager) == 0 {
		pager = []string{"less"}
	}
	_, onTerminal := terminal(a.Out)
	color := onTerminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if _, err := proc.LookPath(pager[0]); !onTerminal || err != nil || pager[0] == "cat" {
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
