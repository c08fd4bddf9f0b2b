// Command banger is the command line of banger.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"banger/internal/cli"
)

// Set by the linker.
var version, commit, built string

// softMemory is how many bytes of memory the collector of garbage tries to keep to: a repository of 50,000 files needs half of it.
const softMemory = 64 << 20

func main() {
	debug.SetMemoryLimit(softMemory)
	os.Exit(cli.Run(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
		cli.Build{Version: version, Commit: commit, Built: built}))
}
