// Package machine is the protocol of machine.sock, where banger-machine serves one VM, and its client.
package machine
