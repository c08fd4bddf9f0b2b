package machine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"banger"
)

func openRing(t *testing.T, path string) *Ring {
	t.Helper()
	ring, err := OpenRing(path)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// ringContent is all that is there.
func ringContent(path string) ([]byte, error) {
	var content bytes.Buffer
	_, err := readRing(path, ConsoleRequest{}, &content)
	return content.Bytes(), err
}

// The ring holds what a list of all bytes would, through restarts of its writer.
func TestRingAgainstModel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.ring")
	random := rand.New(rand.NewPCG(1, 2))
	var all []byte
	ring := openRing(t, path)
	for range 60 {
		p := make([]byte, random.IntN(3*maxRingWrite))
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		if n, err := ring.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		all = append(all, p...)
		if random.IntN(5) == 0 {
			ring.Close()
			ring = openRing(t, path)
		}
		want := all[oldest(uint64(len(all))):]
		fromFile, err := ringContent(path)
		if err != nil || !bytes.Equal(fromFile, want) {
			t.Fatalf("readRing after %d bytes: %d bytes, %v, want %d", len(all), len(fromFile), err, len(want))
		}
		var copied bytes.Buffer
		if err := ring.Copy(0, &copied); err != nil || !bytes.Equal(copied.Bytes(), want) {
			t.Fatalf("Copy after %d bytes: %d bytes, %v", len(all), copied.Len(), err)
		}
		since := uint64(random.IntN(len(all) + 1))
		tail, err := ring.Tail(since, 1000)
		if start := max(int(since), len(all)-1000); err != nil || !bytes.Equal(tail, all[start:]) {
			t.Fatalf("Tail(%d) of %d bytes: %d bytes, %v", since, len(all), len(tail), err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != ringHeader+ringSize || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
}

// Every follower reads a run of what was written, without a wrong byte, however fast the writer is.
func TestRingFollowers(t *testing.T) {
	ring := openRing(t, filepath.Join(t.TempDir(), "console.ring"))
	const total = 4 * ringSize
	pattern := func(pos int) byte { return byte(pos>>8) ^ byte(pos) ^ byte(pos>>16) }
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			var got bytes.Buffer
			if err := ring.Follow(t.Context(), 0, &got); err != nil {
				t.Error(err)
			}
			b := got.Bytes()
			tail := b[max(0, len(b)-1000):]
			for i, c := range tail {
				if pos := total - len(tail) + i; c != pattern(pos) {
					t.Errorf("byte %d is %#x, want %#x", pos, c, pattern(pos))
					return
				}
			}
		})
	}
	for pos := 0; pos < total; {
		p := make([]byte, min(1000, total-pos))
		for i := range p {
			p[i] = pattern(pos + i)
		}
		ring.Write(p)
		pos += len(p)
	}
	ring.Close()
	wg.Wait()
}

func TestRingFollowEnds(t *testing.T) {
	ring := openRing(t, filepath.Join(t.TempDir(), "console.ring"))
	io.WriteString(ring, "old ")
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ring.Follow(ctx, 0, w) }()
	got := make([]byte, 7)
	io.ReadFull(r, got[:4])
	io.WriteString(ring, "new")
	io.ReadFull(r, got[4:])
	if string(got) != "old new" {
		t.Errorf("follower reads %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Follow = %v", err)
	}
}

func TestReadRingDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.ring")
	if _, err := ringContent(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("readRing of nothing = %v", err)
	}
	for name, content := range map[string]string{"empty": "", "other": "some other file, longer than a header", "cut off": ringMagic + "\x10\x00\x00\x00\x00\x00\x00\x00abc"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ringContent(path); !errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("readRing of %s = %v, want ErrCorrupt", name, err)
		}
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	io.WriteString(openRing(t, path), "fresh")
	if got, err := ringContent(path); err != nil || string(got) != "fresh" {
		t.Errorf("readRing after OpenRing of a damaged file = %q, %v", got, err)
	}
}

// No file makes a reader fail otherwise than with an error, or read more than a ring holds.
func FuzzReadRing(f *testing.F) {
	f.Add(uint64(5), []byte("abcdefgh"))
	f.Add(^uint64(0), []byte{})
	path := filepath.Join(f.TempDir(), "console.ring")
	f.Fuzz(func(t *testing.T, written uint64, data []byte) {
		header := []byte(ringMagic)
		for i := range 8 {
			header = append(header, byte(written>>(8*i)))
		}
		if err := os.WriteFile(path, append(header, data...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, ringHeader+ringSize); err != nil {
			t.Fatal(err)
		}
		got, err := ringContent(path)
		if want := written - oldest(written); err != nil || uint64(len(got)) != want {
			t.Errorf("readRing of %d bytes written = %d bytes, %v, want %d", written, len(got), err, want)
		}
	})
}

// The last lines are those that a list of all lines has, wherever the ring's seam is.
func TestLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.ring")
	ring := openRing(t, path)
	random := rand.New(rand.NewPCG(3, 4))
	var all []byte
	for range 150 {
		p := bytes.Repeat([]byte("x"), random.IntN(maxRingWrite))
		for range random.IntN(6) {
			if len(p) > 0 {
				p[random.IntN(len(p))] = '\n'
			}
		}
		if random.IntN(3) == 0 && len(p) > 0 {
			p[len(p)-1] = '\n'
		}
		if _, err := ring.Write(p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p...)
		there := all[oldest(uint64(len(all))):]
		lines := bytes.SplitAfter(there, []byte("\n"))
		if last := len(lines) - 1; len(lines[last]) == 0 {
			lines = lines[:last]
		}
		for _, n := range []int{1, 2, 1 + random.IntN(9), len(lines) - 1, len(lines), len(lines) + 1, 1 << 40} {
			if n < 1 {
				continue
			}
			want := bytes.Join(lines[max(0, len(lines)-n):], nil)
			var got bytes.Buffer
			end, err := readRing(path, ConsoleRequest{Lines: n}, &got)
			if err != nil || !bytes.Equal(got.Bytes(), want) || end != uint64(len(all)) {
				t.Fatalf("the last %d of %d lines in %d bytes: %d bytes, %v, want %d", n, len(lines), len(all), got.Len(), err, len(want))
			}
			if from, err := ring.Start(ConsoleRequest{Lines: n, From: end - 1}); err != nil || from != end-1 && len(all) > 0 && all[len(all)-1] != '\n' {
				t.Fatalf("Start = %d, %v, want %d", from, err, end-1)
			}
		}
	}
}

// What begins in the middle begins there, unless it is gone.
func TestRingFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.ring")
	ring := openRing(t, path)
	all := bytes.Repeat([]byte("0123456789abcdef"), ringSize/8)
	for _, part := range [][]byte{all[:100], all[100:]} {
		if _, err := ring.Write(part); err != nil {
			t.Fatal(err)
		}
		written := ring.Written()
		for _, from := range []uint64{0, 1, 99, oldest(written), oldest(written) + 5, written - 1, written, written + 1, 1 << 60} {
			start := max(min(from, written), oldest(written))
			var got bytes.Buffer
			if end, err := readRing(path, ConsoleRequest{From: from}, &got); err != nil || end != written || !bytes.Equal(got.Bytes(), all[start:written]) {
				t.Errorf("from %d of %d: %d bytes, %d, %v", from, written, got.Len(), end, err)
			}
		}
	}
}
