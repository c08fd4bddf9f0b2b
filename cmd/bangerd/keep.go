package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"banger"
	"banger/internal/disk"
	"banger/internal/statedir"
	"banger/internal/transfer"
	"banger/internal/workspace"
)

// keeper keeps the work in VMs that are about to be deleted.
type keeper struct {
	dir   statedir.Dir
	saves workspace.Saves
}

// keep keeps what is in each workspace of a VM that does not run.
func (k keeper) keep(ctx context.Context, vm banger.VM, files *disk.FS) ([]banger.Autosave, error) {
	var kept []banger.Autosave
	at := time.Now()
	for _, ws := range vm.Workspaces {
		record, err := workspace.ReadRecord(k.dir.VM(vm.ID).Workspace(ws.GuestPath))
		if errors.Is(err, banger.ErrNotFound) { // every file counts as the guest's own
			record, err = workspace.Record{Workspace: ws}, nil
		}
		if err != nil {
			return kept, err
		}
		more, err := k.saves.Keep(ctx, stopped(files), vm, record, at)
		kept = append(kept, more...)
		if err != nil {
			return kept, err
		}
		at = at.Add(time.Millisecond) // each has a name of its own
	}
	return kept, nil
}

// stopped reads the files of a VM that does not run as those of a running one are read.
func stopped(files *disk.FS) workspace.Guest {
	return workspace.Guest{Ask: func(ctx context.Context, req transfer.Request, names []string) (io.ReadCloser, error) {
		var question bytes.Buffer
		if err := transfer.WriteRequest(&question, req, names); err != nil {
			return nil, err
		}
		in := bufio.NewReader(&question)
		req, err := transfer.ReadRequest(in)
		if err != nil {
			return nil, err
		}
		parts, err := files.Parts(req.Dir())
		if err != nil {
			return nil, err
		}
		r, w := io.Pipe()
		go func() { w.CloseWithError(transfer.ServeParts(ctx, w, in, req, parts, nil)) }()
		return r, nil
	}}
}
