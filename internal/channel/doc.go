// Package channel is the way between host and guest: Firecracker's vsock convention on unix sockets, and for VMMs
// without vsock the same over one byte stream (hello, then yamux). The messages of the events stream are here too.
package channel
