package cli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/channel"
)

func (a *app) sshProxy() *cobra.Command {
	var start bool
	cmd := &cobra.Command{
		Use: "ssh-proxy [flags] VM", Short: "carry an ssh connection to a VM (a ProxyCommand)", Args: sshTarget,
		Long: `Connects standard input and output with the SSH server of a running VM. "banger ssh-config" writes the ssh configuration that uses
this; the name may end with .vm.`,
		Example:           "  ssh -o ProxyCommand='banger ssh-proxy %h' devbox.vm",
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, err := a.reach(cmd.Context(), vmOfHost(args[0]), start)
			if err != nil {
				return streamError{err}
			}
			conn, err := a.machine(vm).Connect(cmd.Context(), channel.PortSSH)
			if err != nil {
				return streamError{err}
			}
			defer conn.Close()
			defer context.AfterFunc(cmd.Context(), func() { conn.SetDeadline(time.Unix(1, 0)) })()
			go func() {
				_, _ = io.Copy(conn, a.In)
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			}()
			if _, err = io.Copy(a.Out, conn); err != nil && cmd.Context().Err() == nil {
				return streamError{a.whyGone(vm, err)}
			}
			return nil // by SIGHUP ends every ssh its proxy: its user is told nothing
		},
	}
	cmd.Flags().BoolVar(&start, "start", false, "start the VM if it is stopped")
	return cmd
}
