// Package banger is the vocabulary of the project: VMs, images, kernels, errors, progress and the types that cross
// a socket between banger's own processes. It holds rules that are pure (Validate, Parse) and does no I/O.
package banger
