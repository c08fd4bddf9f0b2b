package transfer

import (
	"errors"
	"net"
	"strings"
	"testing"

	"banger"
	"banger/internal/tree"
)

func TestBringSync(t *testing.T) {
	var files []tree.Entry
	for range maxSynced + 5 {
		files = append(files, tree.Literal("~/f", 0o600, []byte("x")))
	}
	got, err := BringSync(t.Context(), guest(t)(), tree.Of(files...))
	if err != nil || got.Written != len(files) || len(got.Left) != maxSynced || got.Left[0] != (SyncedFile{"~/f", "because"}) {
		t.Errorf("BringSync = %+v, %v", got, err)
	}
	if _, err := BringSync(t.Context(), guest(t)(), tree.Of(tree.Entry{Path: "../f", Kind: tree.File})); err == nil {
		t.Error("a path that leads out was taken")
	}
	bad := func(yield func(tree.Entry, error) bool) { yield(tree.Entry{}, errors.New("planned")) }
	if _, err := BringSync(t.Context(), guest(t)(), bad); err == nil || !strings.Contains(err.Error(), "planned") {
		t.Errorf("a source that fails: %v", err)
	}
}

// What a hostile guest answers is bounded.
func TestBringSyncHostile(t *testing.T) {
	many := Synced{}
	for range maxSynced + 1 {
		many.Kept = append(many.Kept, SyncedFile{"~/f", "x"})
	}
	for name, answer := range map[string]Answer{"too long": {Synced: &many}, "nothing": {}, "something else": {Report: &Report{}}} {
		pair, other := net.Pipe()
		go func() {
			defer other.Close()
			_ = writeLine(other, Answer{})
			_ = writeLine(other, answer)
		}()
		conn := pipeConn{pair}
		if _, err := BringSync(t.Context(), conn, tree.Of()); !errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("%s: %v, want corrupt", name, err)
		}
	}
}

// pipeConn takes everything that is written.
type pipeConn struct{ net.Conn }

func (pipeConn) Write(p []byte) (int, error) { return len(p), nil }
func (pipeConn) CloseWrite() error           { return nil }
