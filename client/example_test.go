package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"banger"
	"banger/api"
	"banger/client"
)

// A daemon is started when none runs, and goes on when the program ends.
func ExampleDial() {
	ctx := context.Background()
	c, err := client.Dial(ctx, exampleConfig())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	vms, err := c.ListVMs(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(vms), "VMs")
	// An error has a kind, a message, the next step, and the id that finds it in the daemon's log.
	_, err = c.ShowVM(ctx, "devbox")
	fmt.Println(errors.Is(err, banger.ErrNotFound), err)
	fmt.Println(c.Shutdown(ctx, false))
	// Output:
	// 0 VMs
	// true vm "devbox": not found
	// <nil>
}

// exampleConfig names a daemon for tests. A zero Config is this user's own.
func exampleConfig() client.Config {
	return client.Config{StateDir: os.Getenv("CLIENT_TEST_STATE"), Daemon: os.Getenv("CLIENT_TEST_DAEMON")}
}

// A machine for one command.
func ExampleClient_Exec() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	vm, err := c.CreateVM(ctx, api.CreateRequest{Image: "debian-bookworm-slim", Start: true}, nil)
	if err != nil {
		log.Fatal(err, banger.HintOf(err))
	}
	id := string(vm.ID)
	result, err := c.Exec(ctx, id, banger.ExecRequest{Argv: []string{"uname", "-r"}}, client.Stdio{Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		log.Print(err)
	}
	fmt.Println("status", result.ExitStatus())
	if _, err := c.DeleteVM(ctx, id, true, nil); err != nil {
		log.Fatal(err)
	}
}

// What takes long reports its stages. Cancelling its context undoes it.
func ExampleClient_PullImage() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	image, err := c.PullImage(ctx, api.PullRequest{Ref: "alpine:3"}, func(p banger.Progress) {
		fmt.Println(p.Stage, p.Text, p.Bytes, p.Total)
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(image.Name, image.SizeBytes)
}
