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

// softMemory is how many bytes of memory the collector of garbage tries to keep to: what is known of a repository of 50,000 files fits in without
// the collector being at work all the time.
const softMemory = 72 << 20

func main() {
	debug.SetMemoryLimit(softMemory)
	os.Exit(cli.Run(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
		cli.Build{Version: version, Commit: commit, Built: built}))
}
