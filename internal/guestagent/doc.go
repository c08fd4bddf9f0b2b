// Package guestagent is everything banger does inside a guest: first process of the initrd (boot.go and the files it
// names), then agent: the events stream (events.go), the SSH server (ssh.go) and the end of a boot (poweroff.go). It runs
// in any image: it needs no program, library or file of it.
package guestagent
