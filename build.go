package banger

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Build is one build of a program of banger's.
type Build struct {
	Version string `json:"version"` // as git describes the source: "v1.2.0-3-g0123456"; "dev" when nothing tells
	Commit  string `json:"commit"`  // of the source; "unknown" when nothing tells
	Built   string `json:"built"`   // RFC 3339, UTC; "unknown" when nothing tells
	Go      string `json:"go"`      // version of the toolchain
	OS      string `json:"os"`      // as Go names it: "linux"
	Arch    string `json:"arch"`    // as Go names it: "amd64"
}

// Complete fills in what is not stamped into this program by what the toolchain knows.
func (b Build) Complete() Build {
	known := Build{Version: "dev", Commit: "unknown", Built: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				known.Commit = s.Value
			case "vcs.time":
				known.Built = s.Value
			}
		}
	}
	return Build{cmp.Or(b.Version, known.Version), cmp.Or(b.Commit, known.Commit), cmp.Or(b.Built, known.Built), runtime.Version(), runtime.GOOS, runtime.GOARCH}
}

// String is a build in one line, for people.
func (b Build) String() string {
	return fmt.Sprintf("%s (commit %.12s, built %s)", b.Version, b.Commit, b.Built)
}
