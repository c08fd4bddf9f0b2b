package banger_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ranks says who may import whom: a package imports lower ranks only. A package that is missing here fails the test, so
// that adding one is a choice. docs/architecture.md draws the same picture.
var ranks = map[string]int{
	"banger": 0, "internal/undo": 0, "internal/atomicfile": 0, "internal/proc": 0, "internal/statedir": 0, "internal/tree": 0,
	"internal/sparse": 0, "internal/share": 0,
	"internal/ext4": 1, "internal/channel": 1, "internal/fence": 1, "internal/listening": 1, "internal/dns": 1, "internal/resolver": 2, "internal/entry": 2, "api": 1, "internal/machine": 1, "internal/hostcheck": 1, "internal/config": 1, "internal/download": 1, "internal/transfer": 1, "internal/twoway": 1,
	"internal/ext4/write": 2, "internal/ext4/read": 2, "internal/ext4/patch": 2, "internal/ext4/check": 2,
	"internal/store": 2, "internal/vmm": 2, "internal/guest": 2, "internal/guestagent": 2, "internal/initrd": 2, "internal/debian": 2, "client": 2,
	"internal/oci": 2, "internal/hostimage": 2, "internal/image": 3, "internal/kernel": 3, "internal/disk": 3, "internal/workspace": 3, "internal/vmm/qemu": 3, "internal/vmm/vmmtest": 3,
	"internal/catalog": 2, "internal/project": 2, "internal/filesync": 1, "internal/tooling": 1, "internal/manual": 1, "internal/top": 3,
	"internal/egress": 1, "internal/netstack": 2,
	"internal/schema": 1, "internal/format": 1, "test/openapi": 7,
	"internal/lifecycle": 4, "internal/supervisor": 4, "internal/mcp": 4,
	"internal/daemon": 5, "internal/doctor": 5, "internal/cli": 5,
	"internal/testenv/shown": 6, "internal/testenv/screen": 6, "scripts/changelog": 7, "scripts/picture": 7,
	"cmd/banger": 6, "cmd/bangerd": 6, "cmd/banger-machine": 6, "cmd/banger-guest": 6,
	"internal/testenv": 6, "test/smoke": 7, "test/script": 7, "bench/bare": 6, "bench/ext4": 7, "bench/vmrun": 7, "bench/image": 7, "bench/network": 7, "bench/workspace": 7, "bench/network/inside": 7, "bench/lifecycle": 7, "bench/interactive": 7,
	"test/dist":       7,
	"scripts/testsum": 7, "scripts/man": 7, "scripts/promises": 7,
}

// siblings are the imports within one rank that are meant: every package of rank 0 may import the vocabulary.
var siblings = map[string][]string{
	"bench/bare": {"internal/testenv"}, "internal/testenv/screen": {"internal/testenv"}, "internal/undo": {"banger"}, "internal/atomicfile": {"banger"}, "internal/proc": {"banger"}, "internal/statedir": {"banger"},
	"internal/tree": {"banger"}, "internal/sparse": {"banger"}, "internal/share": {"banger"},
	"internal/ext4/patch": {"internal/ext4/read"}, "internal/ext4/check": {"internal/ext4/read"}, "internal/hostimage": {"internal/ext4/read"},
	"internal/twoway": {"internal/transfer"},
}

// bans are imports that a rank alone would allow. A pattern ends with "/..." for all below it.
var bans = []struct{ from, to, why string }{
	{"internal/cli", "internal/lifecycle", "state is reached through client"},
	{"internal/cli", "internal/store", "state is reached through client"},
	{"internal/cli", "internal/image", "state is reached through client"},
	{"internal/cli", "internal/disk", "state is reached through client"},
	{"internal/cli", "internal/vmm/...", "state is reached through client"},
	{"internal/guestagent", "net/http", "the guest binary stays small"},
	{"internal/ext4/...", "os/exec", "same input, same bytes"},
	{"internal/tree", "os/exec", "same input, same bytes"},
	{"internal/ext4/read", "os", "the reader takes an io.ReaderAt, never a path"},
}

type goPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	GoFiles    []string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, "banger/")
		list = append(list, p)
	}
}

func TestImportRanks(t *testing.T) {
	for _, p := range listPackages(t) {
		rank, ok := ranks[p.ImportPath]
		if !ok {
			t.Errorf("%s has no rank: add it to ranks", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, "banger/")
			if !ours && imp != "banger" {
				continue
			}
			if ranks[to] >= rank && !slices.Contains(siblings[p.ImportPath], to) {
				t.Errorf("%s (rank %d) imports %s (rank %d)", p.ImportPath, rank, to, ranks[to])
			}
		}
	}
}

func TestImportBans(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, ban := range bans {
			if !matches(ban.from, p.ImportPath) {
				continue
			}
			for _, imp := range p.Imports {
				if matches(ban.to, strings.TrimPrefix(imp, "banger/")) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, ban.why)
				}
			}
		}
	}
}

func matches(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return path == pattern
}

// processStarters are the packages that may import os/exec or call os.StartProcess: proc starts the host's processes, the
// guest's agent the guest's; tests and benchmarks drive programs as a user does.
var processStarters = []string{"internal/proc", "internal/guestagent", "internal/testenv/...", "test/...", "bench/...", "scripts/..."}

func TestOnlyProcStartsProcesses(t *testing.T) {
	for _, p := range listPackages(t) {
		if slices.ContainsFunc(processStarters, func(s string) bool { return matches(s, p.ImportPath) }) {
			continue
		}
		if slices.Contains(p.Imports, "os/exec") {
			t.Errorf("%s imports os/exec: processes are started by internal/proc", p.ImportPath)
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range listPackages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		var with []string
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil {
				with = append(with, name)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s has a package comment in %d files %v, want exactly one", p.ImportPath, len(with), with)
		}
	}
}

const (
	maxFileLines    = 700
	maxPackageLines = 2000
	maxFuncLines    = 100
)

// largePackages may pass maxPackageLines, each for its reason.
var largePackages = map[string]string{
	"internal/cli":        "one file a command",
	"internal/guestagent": "everything the guest does: mounts, settings, SSH server, modprobe, power off",
	"internal/ext4/write": "one on-disk format, all of it",
	"internal/ext4/read":  "every ext2, ext3 and ext4 that a distribution makes",
	"internal/ext4/patch": "allocation, directories and the journal of one format",
	"internal/image":      "every way that an image comes and goes: packages, registries, archives, files of the host, the catalog",
	"internal/netstack":   "ARP, DHCP, ICMP, TCP, UDP and DNS of one link",
	"internal/kernel":     "packages, kernel images, modules and their indexes of every Linux distribution",
	"internal/lifecycle":  "the order of all steps and their undo",
	"internal/transfer":   "both ends of one stream: copies, parts of trees, synced files, and the places where they land",
	"internal/testenv":    "what tests of every package share: users, worlds, oracles, servers, hostile repositories",
	"internal/twoway":     "both ends of one conversation, and the tree that each watches, compares and writes",
	"internal/workspace":  "the way in, the way back and the formats of git that both read and write",
}

func TestSizes(t *testing.T) {
	for _, p := range listPackages(t) {
		total := 0
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			n := countLines(t, path)
			total += n
			if n > maxFileLines {
				t.Errorf("%s has %d lines, want at most %d", path, n, maxFileLines)
			}
			checkFunctions(t, path)
		}
		if total > maxPackageLines && largePackages[p.ImportPath] == "" {
			t.Errorf("package %s has %d lines, want at most %d or a reason in largePackages", p.ImportPath, total, maxPackageLines)
		}
	}
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); n++ {
	}
	return n
}

func checkFunctions(t *testing.T, path string) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > maxFuncLines {
			t.Errorf("%s: %s has %d lines, want at most %d", path, fn.Name.Name, n, maxFuncLines)
		}
	}
}

// A bare t.Skip hides what is missing; t.Skipf and testenv's functions name it.
func TestSkipsNameWhatIsMissing(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(src), "\n") {
			if strings.Contains(line, "t.Skip"+"()") || strings.Contains(line, "t.Skip"+"Now") {
				t.Errorf("%s:%d: a skip names the missing thing", path, i+1)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
