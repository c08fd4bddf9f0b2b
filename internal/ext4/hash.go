package ext4

import (
	"encoding/binary"
	"math/bits"
)

// HashHalfMD4 is the directory hash half_md4 over signed characters, and its minor part.
func HashHalfMD4(name string, seed [16]byte) (hash, minor uint32) {
	state := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	if seed != [16]byte{} {
		for i := range state {
			state[i] = binary.LittleEndian.Uint32(seed[4*i:])
		}
	}
	for {
		in := hashWords(name)
		halfMD4(&state, &in)
		if len(name) <= 32 {
			break
		}
		name = name[32:]
	}
	hash = state[1] &^ 1
	if hash == 0xfffffffe { // the end-of-directory mark
		hash = 0xfffffffc
	}
	return hash, state[2]
}

// hashWords packs the next 32 characters into words, padded with the length that is left.
func hashWords(s string) (in [8]uint32) {
	pad := uint32(len(s)) | uint32(len(s))<<8
	pad |= pad << 16
	for i := range in {
		in[i] = pad
		for j := 4 * i; j < min(4*i+4, len(s)); j++ {
			in[i] = uint32(int32(int8(s[j]))) + in[i]<<8
		}
	}
	return in
}

func halfMD4(state *[4]uint32, in *[8]uint32) {
	a, b, c, d := state[0], state[1], state[2], state[3]
	step := func(a, f, x uint32, s int) uint32 { return bits.RotateLeft32(a+f+x, s) }
	f := func(x, y, z uint32) uint32 { return z ^ x&(y^z) }
	g := func(x, y, z uint32) uint32 { return x&y + (x^y)&z }
	h := func(x, y, z uint32) uint32 { return x ^ y ^ z }
	const k2, k3 = 0x5A827999, 0x6ED9EBA1
	for _, o := range [][4]int{{0, 1, 2, 3}, {4, 5, 6, 7}} {
		a = step(a, f(b, c, d), in[o[0]], 3)
		d = step(d, f(a, b, c), in[o[1]], 7)
		c = step(c, f(d, a, b), in[o[2]], 11)
		b = step(b, f(c, d, a), in[o[3]], 19)
	}
	for _, o := range [][4]int{{1, 3, 5, 7}, {0, 2, 4, 6}} {
		a = step(a, g(b, c, d), in[o[0]]+k2, 3)
		d = step(d, g(a, b, c), in[o[1]]+k2, 5)
		c = step(c, g(d, a, b), in[o[2]]+k2, 9)
		b = step(b, g(c, d, a), in[o[3]]+k2, 13)
	}
	for _, o := range [][4]int{{3, 7, 2, 6}, {1, 5, 0, 4}} {
		a = step(a, h(b, c, d), in[o[0]]+k3, 3)
		d = step(d, h(a, b, c), in[o[1]]+k3, 9)
		c = step(c, h(d, a, b), in[o[2]]+k3, 11)
		b = step(b, h(c, d, a), in[o[3]]+k3, 15)
	}
	state[0] += a
	state[1] += b
	state[2] += c
	state[3] += d
}
