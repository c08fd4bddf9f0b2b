// Package proc starts, finds, waits for and kills processes. It is the only package that starts any.
package proc
