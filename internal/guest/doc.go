// Package guest is the host's side of a guest: signs in over the guest channel, runs commands there, and speaks the
// events stream. Everything that comes from a guest is bounded.
package guest
