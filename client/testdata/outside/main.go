// Command outside makes a VM, runs a command in it and deletes it, as a program of somebody else's does.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"banger"
	"banger/api"
	"banger/client"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatalf("%v (%s)", err, banger.HintOf(err))
	}
}

func run(ctx context.Context) (err error) {
	c, err := client.Dial(ctx, client.Config{})
	if err != nil {
		return err
	}
	defer c.Close()
	memory := 256
	vm, err := c.CreateVM(ctx, api.CreateRequest{Name: "outside", MemoryMiB: &memory, Start: true}, func(p banger.Progress) {
		fmt.Fprintln(os.Stderr, p.Stage, p.Text)
	})
	if err != nil {
		return err
	}
	defer func() {
		gone, deleteErr := c.DeleteVM(context.WithoutCancel(ctx), string(vm.ID), true, nil)
		if err == nil {
			err = deleteErr
		}
		fmt.Println("deleted", gone.Spec.Name)
	}()
	result, err := c.Exec(ctx, string(vm.ID), banger.ExecRequest{Argv: []string{"sh", "-c", "echo hello from $(hostname); exit 3"}},
		client.Stdio{Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	fmt.Println("status", result.ExitStatus())
	return nil
}
