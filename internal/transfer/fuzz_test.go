package transfer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"banger"
	"banger/internal/tree"
)

// What was written reads the same, however it is cut; what is no stream is an error of a kind, and never a whole one.
func FuzzStream(f *testing.F) {
	f.Add([]byte("text"), uint16(3), uint8(2), []byte{frameData, 0, 0, 0, 1})
	f.Add([]byte{}, uint16(60000), uint8(1), []byte{frameZeros, 255, 255, 255, 255})
	f.Add(bytes.Repeat([]byte{1}, 300), uint16(0), uint8(9), []byte{frameEnd, 0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, data []byte, zeros uint16, times uint8, raw []byte) {
		var b, want bytes.Buffer
		w := newStreamWriter(&b)
		for range times % 16 {
			for _, part := range [][]byte{data, make([]byte, zeros)} {
				want.Write(part)
				if n, err := w.Write(part); n != len(part) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
		}
		if err := w.finish(end{Report: Report{Entries: 7}}); err != nil {
			t.Fatal(err)
		}
		r := &streamReader{r: bufio.NewReader(iotest.HalfReader(bytes.NewReader(b.Bytes())))}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want.Bytes()) || r.got.Report.Entries != 7 {
			t.Fatalf("read %d of %d bytes, %v", len(got), want.Len(), err)
		}
		r = &streamReader{r: bufio.NewReader(bytes.NewReader(b.Bytes()[:b.Len()-1]))}
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, banger.ErrUnavailable) {
			t.Fatalf("a stream that is cut off: %v", err)
		}
		r = &streamReader{r: bufio.NewReader(bytes.NewReader(raw))}
		if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err != nil && banger.KindName(err) == "internal" {
			t.Fatalf("%v has no kind", err)
		}
	})
}

// Whatever comes from a guest, a copy is whole or not there, and nothing beside it changes.
func FuzzWrite(f *testing.F) {
	var good bytes.Buffer
	src := tree.Of(tree.Directory("x", 0o755), tree.Literal("x/a", 0o644, []byte("text")), tree.Entry{Path: "x/l", Kind: tree.Symlink, Link: "../.."},
		tree.Entry{Path: "x/h", Kind: tree.HardLink, Link: "x/a"}, tree.Directory("x/d", 0o500), tree.Literal("x/d/b", 0o4755, nil))
	if err := Send(&good, Origin{Name: []byte("x"), Dir: true}, src, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes(), uint32(0), byte(0), uint32(0), byte(0))
	f.Add(good.Bytes(), uint32(30), byte('/'), uint32(600), byte('.'))
	f.Fuzz(func(t *testing.T, stream []byte, at1 uint32, b1 byte, at2 uint32, b2 byte) {
		if stream = bytes.Clone(stream); len(stream) > 0 {
			stream[int(at1)%len(stream)] ^= b1
			stream[int(at2)%len(stream)] ^= b2
		}
		parent := t.TempDir()
		to := filepath.Join(parent, "to")
		if err := errors.Join(os.Mkdir(to, 0o755), os.WriteFile(filepath.Join(parent, "beside"), []byte("beside"), 0o600)); err != nil {
			t.Fatal(err)
		}
		in, err := Receive(bytes.NewReader(stream))
		if err == nil {
			_, err = Write(t.Context(), Place{to, string(in.Origin.Name)}, in.Origin, in.Source(), Options{})
		}
		list, listErr := os.ReadDir(to)
		if listErr != nil || err != nil && len(list) > 0 {
			t.Errorf("after %v: %v, %v", err, list, listErr)
		}
		if err != nil && banger.KindName(err) == "internal" {
			t.Errorf("%v has no kind", err)
		}
		if err == nil && len(in.Origin.Name) > 0 && (len(list) != 1 || list[0].Name() != string(in.Origin.Name)) {
			t.Errorf("%v instead of %q", list, in.Origin.Name)
		}
		if list, err := os.ReadDir(parent); err != nil || len(list) != 2 {
			t.Errorf("beside the place: %v, %v", list, err)
		}
		if text, err := os.ReadFile(filepath.Join(parent, "beside")); err != nil || string(text) != "beside" {
			t.Errorf("beside the place: %q, %v", text, err)
		}
	})
}
