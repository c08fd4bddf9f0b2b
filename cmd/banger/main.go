// Command banger is the command line of banger.
package main

import (
	"context"
	"os"

	"banger/internal/cli"
)

// Set by the linker.
var version, commit, built string

func main() {
	os.Exit(cli.Run(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
		cli.Build{Version: version, Commit: commit, Built: built}))
}
