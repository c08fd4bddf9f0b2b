package kernel

import (
	"errors"
	"io"
)

// x86Reader undoes xz's filter for x86 machine code: the packer has made the targets of CALL (e8) and JMP (e9) absolute, so
// that calls of one function look alike. The rule when to leave an operand alone is the format's: it has to be the packer's.
type x86Reader struct {
	r        io.Reader
	buf      []byte // read, the first done bytes of it finished
	done     int
	position uint32 // of buf[0] in the stream
	state    x86State
	err      error // of r
}

const (
	x86Chunk       = 64 << 10
	x86Instruction = 5 // opcode and operand
)

func (x *x86Reader) Read(p []byte) (int, error) {
	for x.done == 0 {
		if x.err != nil {
			return 0, x.err
		}
		x.fill()
	}
	n := copy(p, x.buf[:x.done])
	x.buf, x.done, x.position = x.buf[n:], x.done-n, x.position+uint32(n)
	return n, nil
}

// fill reads more and undoes all but the last bytes, which may be a part of an instruction. At the end these are as they are.
func (x *x86Reader) fill() {
	x.buf = append(make([]byte, 0, len(x.buf)+x86Chunk), x.buf...)
	n, err := io.ReadFull(x.r, x.buf[len(x.buf):cap(x.buf)])
	x.buf = x.buf[:len(x.buf)+n]
	x.done = x.state.undo(x.buf, x.position)
	if err != nil {
		x.done, x.err = len(x.buf), err
		if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
			x.err = io.EOF
		}
	}
}

// x86State is what the filter remembers of the opcodes just seen. The history has a bit for each of the last bytes that was an
// opcode left alone (bit 0: the last byte), and high bits for those whose operand looked like an address.
type x86State struct {
	history uint32
	since   uint32 // bytes since the last opcode, at most x86Forget
	begun   bool
}

const (
	x86Forget      = x86Instruction + 1
	x86HistoryKept = 0x77 // what survives another byte
	x86LeftAlone   = 0x01
	x86WasAddress  = 0x10
)

// x86Ambiguous are the histories (without the last byte) after which an opcode's operand may belong to an earlier one.
var x86Ambiguous = [8]bool{3: true, 5: true, 6: true, 7: true}

// x86Overlap is how many operand bytes the nearest opcode of a history shares with this one.
var x86Overlap = [8]uint32{0, 1, 2, 2, 3, 3, 3, 3}

// undo converts the operands in b, which begins at position of the stream, and gives how many bytes are finished.
func (s *x86State) undo(b []byte, position uint32) int {
	if !s.begun {
		s.begun, s.since = true, x86Forget
	}
	i := 0
	for i+x86Instruction <= len(b) {
		if b[i]&0xfe != 0xe8 {
			i++
			s.since = min(s.since+1, x86Forget)
			continue
		}
		s.age()
		before := s.history >> 1
		address := isX86Address(b[i+4])
		if !address || before >= x86WasAddress || x86Ambiguous[before&7] {
			s.history |= x86LeftAlone
			if address {
				s.history |= x86WasAddress
			}
			s.since = 1
			i++
			continue
		}
		operand := relativeOperand(le.Uint32(b[i+1:]), position+uint32(i)+x86Instruction, s.history)
		le.PutUint32(b[i+1:], operand)
		s.history, s.since = 0, x86Instruction
		i += x86Instruction
	}
	return i
}

// age moves the history on to the opcode that is looked at.
func (s *x86State) age() {
	if s.since > x86Instruction {
		s.history = 0
		return
	}
	for range s.since {
		s.history = s.history & x86HistoryKept << 1
	}
}

// relativeOperand takes the address of the next instruction off an absolute operand. Bytes shared with an earlier opcode were
// converted more than once when that made them look like an address again.
func relativeOperand(absolute, next, history uint32) uint32 {
	operand := absolute - next
	if history != 0 {
		shared := x86Overlap[history>>1&7] * 8
		for isX86Address(byte(operand >> (24 - shared))) {
			operand = operand ^ (1<<(32-shared) - 1) - next
		}
	}
	operand &= 1<<25 - 1
	return operand&(1<<24-1) | -(operand>>24)<<24 // the sign fills the top byte
}

// isX86Address tells whether a byte can be the highest of an operand: targets are within 16 MiB.
func isX86Address(b byte) bool { return b == 0 || b == 0xff }
