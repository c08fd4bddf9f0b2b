// Package top shows what all VMs do and use on a terminal, anew each second, and acts on the one that is chosen.
//
// It asks and acts through the functions of its Config; model.go holds what is known and what keys do, columns.go the table, view.go
// what is drawn.
package top

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"

	"banger"
	"banger/api"
)

// MinInterval is the shortest time between two looks.
const MinInterval = time.Second

// Config is where everything comes from. All texts that its functions give are shown as they are: they are safe for a terminal.
type Config struct {
	In  io.Reader // a terminal
	Out io.Writer // the same

	Interval time.Duration // between two looks, at least MinInterval
	Sort     string        // a name of Columns
	Color    bool

	// Load asks for all VMs, and for what those that run use.
	Load func(context.Context) ([]banger.VM, api.Stats, error)
	// Ports are those that a VM which runs listens on or has pinned, in order.
	Ports func(context.Context, banger.VMID) ([]uint16, error)
	// Logs are the last lines of a VM's console.
	Logs func(context.Context, banger.VMID) (string, error)
	// Shell has the terminal until it returns.
	Shell func(context.Context, banger.VM) error
	// Stop and Start return when it is done.
	Stop, Start func(context.Context, banger.VM) error
}

// Run shows VMs until the user leaves or ctx ends; the terminal is as before then. What it was doing to a VM goes on without it.
func Run(ctx context.Context, cfg Config) error {
	options := []tea.ProgramOption{tea.WithContext(ctx), tea.WithInput(cfg.In), tea.WithOutput(cfg.Out), tea.WithEnvironment(os.Environ()), tea.WithoutSignalHandler()}
	_, err := tea.NewProgram(newModel(ctx, cfg), options...).Run()
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, tea.ErrProgramKilled) {
		return cause
	}
	return err
}
