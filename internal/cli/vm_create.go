package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"banger/api"
)

func (a *app) vmCreate() *cobra.Command {
	var spec specFlags
	var env execFlags
	var detach bool
	cmd := &cobra.Command{
		Use: "create [flags]", Short: "make a VM without starting it", Args: noPositional,
		Example: "  banger vm create --name devbox --memory 4G --disk-size 40G\n  banger vm start devbox\n  banger vm create --name scratch --ttl 7d --stop-idle 30m",
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := spec.request()
			if err != nil {
				return err
			}
			if req.Env, err = env.environment(os.LookupEnv); err != nil {
				return err
			}
			if err := spec.host.apply(&req, os.LookupEnv); err != nil {
				return err
			}
			req.User = env.user
			gitIdentity(cmd.Context(), &req)
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if detach {
				return a.detach(cmd.Context(), c, api.RouteVMCreate, req)
			}
			show, end := a.progress()
			detail, err := c.CreateVM(cmd.Context(), req, show)
			end()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(detail)
			}
			if a.quiet {
				_, err = fmt.Fprintln(a.Out, detail.ID)
				return err
			}
			a.notice("%s", specLine(detail.Spec))
			_, err = fmt.Fprintln(a.Out, escape(detail.Spec.Name))
			return err
		},
	}
	spec.add(a, cmd)
	env.addEnv(cmd)
	addDetach(cmd, &detach)
	return cmd
}
