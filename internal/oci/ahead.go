package oci

import (
	"io"
	"os"
)

const (
	chunkSize   = 256 << 10
	chunksAhead = 16
	// maxSpool bounds what of one stream waits in a file for its reader.
	maxSpool = 512 << 20
)

// chunk is a part of a stream, or its end.
type chunk struct {
	bytes []byte
	err   error
}

// aheadReader gives what a goroutine of its own reads ahead: into a file until somebody reads, and from then on into a few chunks
// of memory.
type aheadReader struct {
	end     func()
	wanted  chan struct{} // closed by the first Read
	stopped chan struct{} // closed by close
	ended   chan struct{} // closed when the goroutine has ended
	spooled chan *os.File // once: what went to the file, nil for nothing
	chunks  chan chunk
	free    chan []byte

	reading, closed bool
	file            *os.File // being read
	now, rest       []byte   // the chunk that is being read, and what is left of it
	err             error
}

// readAhead opens a stream and reads it ahead, at first into a file without a name in the directory spool. end makes reads of the stream
// return.
func readAhead(spool string, end func(), open func() (stream io.Reader, closer func(), err error)) *aheadReader {
	r := &aheadReader{end: end, wanted: make(chan struct{}), stopped: make(chan struct{}), ended: make(chan struct{}),
		spooled: make(chan *os.File, 1), chunks: make(chan chunk, chunksAhead), free: make(chan []byte, chunksAhead+1)}
	for range chunksAhead {
		r.free <- nil
	}
	go func() {
		defer close(r.ended)
		defer close(r.chunks)
		stream, closer, err := open()
		if err != nil {
			r.spooled <- nil
			r.give(nil, err)
			return
		}
		defer closer()
		if err := r.spool(spool, stream); err != nil {
			r.give(nil, err)
			return
		}
		for {
			buffer, ok := r.buffer()
			if !ok {
				return
			}
			n, err := fill(stream, buffer)
			if !r.give(buffer[:n], err) || err != nil {
				return
			}
		}
	}()
	return r
}

// spool writes the stream to a file until it is read, has all been written, or is too long. What can't be written is given as a chunk.
func (r *aheadReader) spool(dir string, stream io.Reader) error {
	buffer := make([]byte, chunkSize)
	var file *os.File
	defer func() { r.spooled <- file }()
	for total := 0; total < maxSpool; {
		select {
		case <-r.wanted:
			return nil
		case <-r.stopped:
			return nil
		default:
		}
		n, err := fill(stream, buffer)
		if file == nil {
			var createErr error
			if file, createErr = nameless(dir); createErr != nil {
				r.give(buffer[:n], nil)
				return err
			}
		}
		written, writeErr := file.Write(buffer[:n])
		if total += written; writeErr != nil {
			r.give(buffer[written:n], nil)
			return err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nameless makes a file that goes with its descriptor.
func nameless(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return nil, err
	}
	return file, os.Remove(file.Name())
}

func (r *aheadReader) buffer() ([]byte, bool) {
	select {
	case buffer := <-r.free:
		if buffer == nil {
			buffer = make([]byte, chunkSize)
		}
		return buffer[:chunkSize], true
	case <-r.stopped:
		return nil, false
	}
}

// give hands a chunk over and tells whether anybody still reads.
func (r *aheadReader) give(bytes []byte, err error) bool {
	select {
	case r.chunks <- chunk{bytes, err}:
		return true
	case <-r.stopped:
		return false
	}
}

// fill reads until p is full or the stream ends; the error is the stream's own.
func fill(stream io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = stream.Read(p[n:])
		n += more
	}
	return n, err
}

func (r *aheadReader) Read(p []byte) (int, error) {
	if !r.reading {
		r.reading = true
		close(r.wanted)
		if r.file = <-r.spooled; r.file != nil {
			if _, err := r.file.Seek(0, io.SeekStart); err != nil {
				return 0, err
			}
		}
	}
	if r.file != nil {
		n, err := r.file.Read(p)
		if n > 0 {
			return n, nil
		}
		r.file.Close()
		if r.file = nil; err != io.EOF {
			r.err = err
		}
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if cap(r.now) == chunkSize {
			r.free <- r.now
		}
		c := <-r.chunks
		r.now, r.rest, r.err = c.bytes, c.bytes, c.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// close ends the reading ahead and waits for it.
func (r *aheadReader) close() {
	if r.closed {
		return
	}
	r.closed = true
	close(r.stopped)
	r.end()
	<-r.ended
	if !r.reading {
		r.file = <-r.spooled
	}
	if r.file != nil {
		r.file.Close()
	}
}
