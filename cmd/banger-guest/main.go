// Command banger-guest is the first process of a guest's initrd, then its agent, and the modprobe of its kernel.
package main

import (
	"os"

	"banger/internal/guestagent"
)

func main() { os.Exit(guestagent.Main(os.Args)) }
