// Command man writes the manual pages of all commands into DIR/man1, and that of the configuration's file into DIR/man5. From the
// repository's root: go run ./scripts/man -version v1.2.0 -date 2026-11-29 DIR
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

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
	if err := write(flag.Arg(0), edition); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(dir string, edition manual.Edition) error {
	if err := manual.WritePages(filepath.Join(dir, "man1"), cli.Commands(edition.Version), edition); err != nil {
		return err
	}
	config, err := os.ReadFile("docs/config.md")
	if err != nil {
		return err
	}
	page := manual.Document("banger.toml", "5", "the configuration file of banger", string(config), edition)
	if err := os.MkdirAll(filepath.Join(dir, "man5"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "man5", "banger.toml.5"), []byte(page), 0o644)
}
