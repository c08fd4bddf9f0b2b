package testenv

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
)

// Repo is a repository of any size, the same every time: C-like sources in directories of fifty, some larger files, some
// programs and symbolic links, and a history in which each commit edits a few files.
type Repo struct{ Files, Commits int }

// Path is that of a file.
func (r Repo) Path(n int) string {
	return fmt.Sprintf("src/%02d/%03d/file%05d.c", n/5000, n/50, n)
}

// Stream writes the repository as git fast-import reads it; its branch is main.
func (r Repo) Stream(w io.Writer) error {
	out := bufio.NewWriterSize(w, 1<<20)
	random := rand.New(rand.NewPCG(7, 7))
	when := 1_700_000_000
	begin := func(n int) {
		message := fmt.Sprintf("commit %d\n", n)
		fmt.Fprintf(out, "commit refs/heads/main\nmark :%d\ncommitter A U Thor <author@example.com> %d +0000\ndata %d\n%s", n+1, when+n*60, len(message), message)
		if n > 0 {
			fmt.Fprintf(out, "from :%d\n", n)
		}
	}
	modify := func(mode, path, content string) {
		fmt.Fprintf(out, "M %s inline %s\ndata %d\n%s\n", mode, path, len(content), content)
	}
	begin(0)
	modify("100644", ".gitignore", "/build/\n*.o\n")
	for n := range r.Files - 1 {
		switch {
		case n%1000 == 999:
			modify("120000", r.Path(n), "../../../.gitignore")
		case n%200 == 199:
			modify("100755", r.Path(n), "#!/bin/sh\n"+source(random, n, 20))
		case n%500 == 250:
			modify("100644", r.Path(n), source(random, n, 2000))
		default:
			modify("100644", r.Path(n), source(random, n, 5+random.IntN(60)))
		}
	}
	for c := 1; c < r.Commits; c++ {
		begin(c)
		for range 3 {
			if n := random.IntN(r.Files - 1); n%1000 != 999 {
				modify("100644", r.Path(n), source(random, n, 5+random.IntN(60)))
			}
		}
	}
	fmt.Fprintln(out, "done")
	return out.Flush()
}

// source makes so many lines of text that compresses like a program.
func source(random *rand.Rand, n, lines int) string {
	text := fmt.Appendf(nil, "/* file %d */\n", n)
	for range lines {
		text = fmt.Appendf(text, "\tif (value_%d > %d) return call_%d(value);\n", random.IntN(50), random.IntN(100000), random.IntN(1000))
	}
	return string(text)
}
