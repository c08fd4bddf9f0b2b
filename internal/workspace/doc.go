// Package workspace carries a repository from the host into a guest, and the work back.
//
// Host-side git runs here, in the client, and for saving in the daemon: never with a program, hook or filter that a repository
// names (git.go). What a guest has is read as bytes (objects, names of refs, files) and taken apart in a repository of our own;
// the guest's configuration, hooks, attributes and alternates are not looked at.
package workspace
