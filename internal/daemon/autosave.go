package daemon

import (
	"bufio"
	"context"
	"net/http"
	"time"

	"banger"
	"banger/api"
	"banger/internal/disk"
	"banger/internal/transfer"
	"banger/internal/workspace"
)

// Saves is the work of deleted VMs.
type Saves interface {
	List() ([]banger.Autosave, error)
	Landed(ref string) (banger.Autosave, error)
	Prune(now time.Time, age time.Duration, all, dryRun bool) ([]banger.Autosave, error)
}

func (s *Server) saveRoutes(rs *routes) {
	answer(rs, api.RouteSaveList, func(*http.Request, none) ([]banger.Autosave, error) {
		list, err := s.Saves.List()
		return append([]banger.Autosave{}, list...), err
	})
	answer(rs, api.RouteSaveLanded, func(r *http.Request, _ none) (banger.Autosave, error) { return s.Saves.Landed(r.PathValue("ref")) })
	answer(rs, api.RouteSavePrune, s.pruneSaves)
}

func (s *Server) pruneSaves(_ *http.Request, req api.PruneSavesRequest) ([]banger.Autosave, error) {
	if req.Age == 0 {
		req.Age = workspace.SavesKept
	}
	if req.Age < 0 {
		return nil, banger.Invalidf("age %s: want a positive time", req.Age)
	}
	removed, err := s.Saves.Prune(time.Now(), req.Age, req.All, req.DryRun)
	return append([]banger.Autosave{}, removed...), err
}

// maxParts bounds a request for files by name, in bytes.
const maxParts = 512 << 20

// readParts answers what is asked about files by name, as the agent of a running VM does. It is no operation: nothing is changed.
func (s *Server) readParts(w http.ResponseWriter, r *http.Request) {
	in := bufio.NewReader(http.MaxBytesReader(w, r.Body, maxParts))
	req, err := transfer.ReadRequest(in)
	if err == nil && req.Walk == nil && req.Read == nil {
		err = banger.Invalidf("files of a VM that does not run are only listed and read")
	}
	out := &patient{w: w}
	if err == nil {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.serving, cancel)()
		err = s.VMs.ReadFiles(ctx, r.PathValue("ref"), func(ctx context.Context, files *disk.FS) error {
			parts, err := files.Parts(req.Dir())
			if err != nil {
				return err
			}
			defer context.AfterFunc(ctx, out.cut)()
			return transfer.ServeParts(ctx, out, in, req, parts, nil)
		})
	}
	if err != nil && !out.sent {
		s.refuse(w, r, err)
	}
}
