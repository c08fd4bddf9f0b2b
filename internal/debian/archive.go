package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz"

	"banger"
	"banger/internal/download"
)

// Limits of what an archive may hold. Debian's largest list of packages has 60 MiB when it is unpacked.
const (
	maxRelease    = 8 << 20
	maxPackages   = 256 << 20
	maxCandidates = 10_000
	maxPackage    = 2 << 30
)

// architecture is that of the packages that are taken, beside those for all.
const architecture = "amd64"

const defaultIdle = 30 * time.Second

// Archive is suites whose packages are taken together, as apt does with its sources.
type Archive struct {
	Suites []Suite
	Keys   Keys // one of them must have signed each suite
	HTTP   *http.Client
	Now    func() time.Time // optional: time.Now
	Idle   time.Duration    // how long a server may give nothing; 0: 30 s
	Pause  time.Duration    // before a request is repeated, then longer; 0: 200 ms
}

// Suite is one suite of a mirror.
type Suite struct {
	Mirror    string // URL of the directory that "dists" and "pool" are in
	Name      string // codename or suite: "bookworm-security"
	Component string // "main"
	Optional  bool   // the mirror may lack it
}

// Candidate is one version of a package that an archive has.
type Candidate struct {
	Name    string
	Version Version
	Depends string
	Size    int64 // of the package's file

	url  string
	file blob
}

// Find gives all versions of the packages whose names match accepts. The lists of packages pass through files in dir, which is empty
// afterwards; report is told how much of the one at hand has come.
// Errors: ErrUnavailable; ErrRefused for a suite that no known key has signed, or that has expired; ErrCorrupt; ErrInvalid for a
// bad mirror.
func (a *Archive) Find(ctx context.Context, dir string, match func(name string) bool, report func(done, total int64)) ([]Candidate, error) {
	var found []Candidate
	for _, suite := range a.Suites {
		more, err := a.find(ctx, suite, dir, match, report)
		if err != nil && (!suite.Optional || !errors.Is(err, errNoSuite)) {
			return nil, fmt.Errorf("suite %s: %w", suite.Name, err)
		}
		found = append(found, more...)
	}
	return found, nil
}

// Newest gives the newest of the candidates of that name, among those of one version unless it is "".
func Newest(candidates []Candidate, name, version string) (newest Candidate, ok bool) {
	wanted, err := ParseVersion(version)
	for _, c := range candidates {
		if c.Name != name || version != "" && (err != nil || c.Version.Compare(wanted) != 0) {
			continue
		}
		if !ok || c.Version.Compare(newest.Version) > 0 {
			newest, ok = c, true
		}
	}
	return newest, ok
}

// Download gets a package's file, which is not there yet. What is cut off is gone on with; size and digest are checked.
// Errors: ErrUnavailable, ErrCorrupt; on error something of the file may be left beside path.
func (a *Archive) Download(ctx context.Context, c Candidate, path string, report func(done int64)) error {
	return a.unlessMissing(a.fetch(ctx, c.url, c.file, path, report))
}

// errNoSuite is that a mirror has no InRelease file of a suite.
var errNoSuite = errors.New("the mirror does not have it")

func (a *Archive) find(ctx context.Context, suite Suite, dir string, match func(string) bool, report func(done, total int64)) ([]Candidate, error) {
	mirror, err := parseMirror(suite.Mirror)
	if err != nil {
		return nil, err
	}
	base := "dists/" + suite.Name
	text, err := a.get(ctx, at(mirror, base, "InRelease"))
	if errors.Is(err, errMissing) {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("%w: %w", errNoSuite, err)}
	}
	if err != nil {
		return nil, err
	}
	r, err := openRelease(text, a.Keys, a.now())
	if err == nil && r.suite != suite.Name && r.codename != suite.Name {
		err = &banger.Error{Kind: banger.ErrRefused, Err: fmt.Errorf("it is of suite %.50q (%.50q)", r.codename, r.suite)}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at(mirror, base, "InRelease"), err)
	}
	list, packed, err := a.packages(ctx, suite, mirror, r, dir, report)
	if err != nil {
		return nil, err
	}
	found, err := readPackages(list, packed, mirror, match)
	return found, errors.Join(err, os.Remove(list))
}

// packages downloads the list of a suite's packages. That of gzip is a third longer than that of xz and unpacked twenty times as fast.
func (a *Archive) packages(ctx context.Context, suite Suite, mirror *url.URL, r release, dir string, report func(done, total int64)) (list, packed string, err error) {
	name := suite.Component + "/binary-" + architecture + "/Packages"
	err = &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("it has no component %s for %s", suite.Component, architecture)}
	list = filepath.Join(dir, "Packages")
	for _, packed := range []string{".gz", ".xz", ""} {
		file, listed := r.files[name+packed]
		if !listed {
			continue
		}
		if file.size > maxPackages {
			return "", "", fmt.Errorf("%w: %s has %s, want at most %s", banger.ErrCorrupt, name+packed, banger.FormatSize(file.size), banger.FormatSize(maxPackages))
		}
		tell := func(done int64) { report(done, file.size) }
		err = errMissing
		if r.byHash { // it can't change while we read it
			err = a.fetch(ctx, at(mirror, "dists", suite.Name, path.Dir(name), "by-hash/SHA256", file.sha256), file, list, tell)
		}
		if errors.Is(err, errMissing) || errors.Is(err, banger.ErrNotFound) {
			err = a.fetch(ctx, at(mirror, "dists", suite.Name, name+packed), file, list, tell)
		}
		if !errors.Is(err, banger.ErrNotFound) {
			return list, packed, err
		}
	}
	return "", "", a.unlessMissing(err)
}

// readPackages gives what match accepts of a list that has been checked.
func readPackages(list, packed string, mirror *url.URL, match func(string) bool) (found []Candidate, err error) {
	file, err := os.Open(list)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unpacked := io.Reader(file)
	switch packed {
	case ".xz":
		unpacked, err = xz.NewReader(file)
	case ".gz":
		unpacked, err = gzip.NewReader(file)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: list of packages: %w", banger.ErrCorrupt, err)
	}
	limited := &io.LimitedReader{R: unpacked, N: maxPackages}
	for p, err := range paragraphs(limited) {
		if err != nil {
			return nil, fmt.Errorf("list of packages: %w", err)
		}
		if arch := p.Get("Architecture"); !match(p.Get("Package")) || arch != architecture && arch != "all" {
			continue
		}
		c, err := parseCandidate(p, mirror)
		if err != nil {
			return nil, fmt.Errorf("%w: list of packages: %.100q: %w", banger.ErrCorrupt, p.Get("Package"), err)
		}
		if found = append(found, c); len(found) > maxCandidates {
			return nil, fmt.Errorf("%w: more than %d packages match", banger.ErrCorrupt, maxCandidates)
		}
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("%w: the list of packages has %s or more", banger.ErrCorrupt, banger.FormatSize(maxPackages))
	}
	return found, nil
}

func parseCandidate(p Paragraph, mirror *url.URL) (Candidate, error) {
	version, err := ParseVersion(p.Get("Version"))
	if err != nil {
		return Candidate{}, err
	}
	file, err := parseBlob(p.Get("Size"), p.Get("SHA256"))
	if err != nil {
		return Candidate{}, err
	}
	name := p.Get("Filename")
	if !fs.ValidPath(name) || file.size > maxPackage {
		return Candidate{}, fmt.Errorf("file name %.200q, size %d", name, file.size)
	}
	return Candidate{Name: p.Get("Package"), Version: version, Depends: p.Get("Depends"), Size: file.size, url: at(mirror, name), file: file}, nil
}

// parseMirror reads a mirror's URL. Errors: ErrInvalid.
func parseMirror(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, &banger.Error{Kind: banger.ErrInvalid, Op: "mirror", Subject: fmt.Sprintf("%.200q", text), Err: errors.New("want an http or https URL"),
			Hint: "for example: " + DebianMirror}
	}
	return u, nil
}

// at is the URL of a file of a mirror.
func at(mirror *url.URL, elements ...string) string {
	u := *mirror
	u.Path, u.RawPath = path.Join(append([]string{"/", u.Path}, elements...)...), ""
	return u.String()
}

func (a *Archive) fetch(ctx context.Context, from string, file blob, path string, report func(done int64)) error {
	client := download.Client{HTTP: a.HTTP, Idle: a.idle(), Pause: a.Pause}
	return client.Fetch(ctx, download.File{URL: from, SizeBytes: file.size, SHA256: file.sha256, Path: path}, report)
}

// unlessMissing makes an archive that lacks what it lists one that is not there: nobody named a thing that does not exist.
func (a *Archive) unlessMissing(err error) error {
	if errors.Is(err, banger.ErrNotFound) {
		return &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New(err.Error()), Hint: "the mirror is not whole: try again later, or take another"}
	}
	return err
}

func (a *Archive) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

func (a *Archive) idle() time.Duration {
	if a.Idle == 0 {
		return defaultIdle
	}
	return a.Idle
}
