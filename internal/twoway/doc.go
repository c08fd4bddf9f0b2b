// Package twoway keeps a work tree of the host and one of a guest alike while both are edited.
//
// An [Engine] on the host compares three states of each path: what is here, what is there, and what both agreed on last ([Base]). It moves
// content between two [Side]s: a directory ([Local]), or the same behind a connection ([Remote], which [Serve] answers in the guest).
// A side changes a path only from the state that the engine has seen, and keeps under another name what turns out to be
// something else: no version that was the newest of a side is ever lost, wherever a side, the connection or the host stops.
package twoway
