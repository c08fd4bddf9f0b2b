// Command man writes the manual pages of all commands: go run ./scripts/man -version v1.2.0 -date 2026-11-29 DIR
package main

import (
	"flag"
	"fmt"
	"os"

	"banger/internal/cli"
	"banger/internal/manual"
)

func main() {
	var edition manual.Edition
	flag.StringVar(&edition.Version, "version", "dev", "of the program")
	flag.StringVar(&edition.Date, "date", "", "of that version: 2026-11-29")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: man [-version VERSION] [-date DATE] DIR")
		os.Exit(2)
	}
	if err := manual.WritePages(flag.Arg(0), cli.Commands(edition.Version), edition); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}
