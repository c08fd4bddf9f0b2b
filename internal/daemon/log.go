package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"banger"
)

// maxLog is the size at which a log file is put aside when the daemon starts; one old file is kept.
const maxLog = 8 << 20

// OpenLog opens the daemon's log: JSON lines, appended; a line of a request carries its operation id as "op".
func OpenLog(path string) (*slog.Logger, *os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("rotate the log: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the log: %w", err)
	}
	return slog.New(operationHandler{slog.NewJSONHandler(file, &slog.HandlerOptions{Level: slog.LevelDebug})}), file, nil
}

// operationHandler adds the operation id of a record's context.
type operationHandler struct{ slog.Handler }

func (h operationHandler) Handle(ctx context.Context, record slog.Record) error {
	if id := banger.OperationOf(ctx); id != "" {
		record.AddAttrs(slog.String("op", id))
	}
	return h.Handler.Handle(ctx, record)
}

func (h operationHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return operationHandler{h.Handler.WithAttrs(attrs)}
}

func (h operationHandler) WithGroup(name string) slog.Handler {
	return operationHandler{h.Handler.WithGroup(name)}
}
