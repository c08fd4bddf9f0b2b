package transfer

import (
	"bufio"
	"context"
	"errors"
	"net"

	"banger"
	"banger/internal/tree"
)

// Sync asks for files to be brought up to date. Their paths begin with "~", the home of the guest's default user, or "root".
type Sync struct{}

// Synced tells what the guest made of files. Paths are as in the stream; each is in one list at most.
type Synced struct {
	Written int          `json:"written"`        // files that are new or other than before
	Kept    []SyncedFile `json:"kept,omitempty"` // replaced, while the guest's own version was moved aside
	Left    []SyncedFile `json:"left,omitempty"` // not brought up to date
}

// SyncedFile is a file and what was done with it: the path of the guest's own version, or why it was left.
type SyncedFile struct {
	Path string `json:"path"`
	Note string `json:"note"`
}

// SyncLimits bound what a stream of a Sync asks for.
var SyncLimits = tree.Limits{Entries: 4000, Bytes: 64 << 20, Strict: true}

// maxSynced bounds each list of a Synced, so that it fits a line.
const maxSynced = 20

// Add appends to a list that still has room.
func (*Synced) Add(list *[]SyncedFile, name, note string) {
	if len(*list) < maxSynced {
		*list = append(*list, SyncedFile{name, note})
	}
}

// BringSync sends files to the guest's port for files, which conn is a connection to, and closes it. What it gives is the guest's word,
// within bounds. Errors: as those of Bring.
func BringSync(ctx context.Context, conn Conn, src tree.Source) (Synced, error) {
	answer, _, err := deliver(ctx, conn, Request{Sync: &Sync{}}, nil, src)
	switch {
	case err != nil:
		return Synced{}, err
	case answer.Synced == nil:
		return Synced{}, &banger.Error{Kind: banger.ErrCorrupt, Err: errors.New("an answer without what was synced")}
	case len(answer.Synced.Kept) > maxSynced || len(answer.Synced.Left) > maxSynced:
		return Synced{}, &banger.Error{Kind: banger.ErrCorrupt, Err: errors.New("an answer that is too long")}
	}
	return *answer.Synced, nil
}

func (s Server) sync(conn net.Conn, r *bufio.Reader) error {
	if s.BringUpToDate == nil {
		return banger.Invalidf("no files are synced here")
	}
	if err := writeLine(conn, Answer{}); err != nil {
		return err
	}
	stream := &streamReader{r: r}
	synced, err := s.BringUpToDate(limited(stream, Origin{Dir: true}, SyncLimits))
	if err != nil {
		return err
	}
	return writeLine(conn, Answer{Synced: &synced})
}
