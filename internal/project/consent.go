package project

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/statedir"
)

// maxGrants bounds how many sets of files of one repository are remembered; the oldest goes.
const maxGrants = 32

// Grant is what the user has allowed one set of files, as they were.
type Grant struct {
	Files []File    `json:"files"` // all that were read, as they were: others are asked for anew
	Needs []Need    `json:"needs"` // that are allowed
	At    time.Time `json:"at"`    // when the user said so
}

// Consent is what the user has allowed one repository.
type Consent struct {
	Path   string  `json:"path"`   // real path of the repository
	Grants []Grant `json:"grants"` // oldest first
}

// Consents is where they are kept: a file for each repository, which only the user can read. No value of a variable is in it.
type Consents struct{ Dir statedir.Dir }

// Missing gives those of needs that the user has not allowed p as it was read.
func (c Consents) Missing(p *Project, needs []Need) ([]Need, error) {
	if len(needs) == 0 {
		return nil, nil
	}
	consent, err := c.read(c.Dir.Consent(p.Root))
	if errors.Is(err, fs.ErrNotExist) {
		return needs, nil
	}
	if err != nil {
		return nil, err
	}
	if consent.Path != p.Root {
		return needs, nil
	}
	var granted []Need
	for _, grant := range consent.Grants {
		if covers(grant.Files, p.Files) {
			granted = append(granted, grant.Needs...)
		}
	}
	return slices.DeleteFunc(slices.Clone(needs), func(n Need) bool { return slices.Contains(granted, n) }), nil
}

// covers tells whether all of files were the same when allowed was made.
func covers(allowed, files []File) bool {
	return !slices.ContainsFunc(files, func(f File) bool { return !slices.Contains(allowed, f) })
}

// Allow remembers that the user wants needs for p as it was read. It takes the place of what was allowed the same files before.
func (c Consents) Allow(p *Project, needs []Need, now time.Time) error {
	if err := c.Dir.Ensure(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir.Consents(), 0o700); err != nil {
		return err
	}
	file := c.Dir.Consent(p.Root)
	consent, err := c.read(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	consent.Path = p.Root
	consent.Grants = slices.DeleteFunc(consent.Grants, func(g Grant) bool { return slices.Equal(names(g.Files), names(p.Files)) })
	consent.Grants = append(consent.Grants, Grant{Files: p.Files, Needs: needs, At: now.UTC().Truncate(time.Second)})
	consent.Grants = consent.Grants[max(0, len(consent.Grants)-maxGrants):]
	text, err := json.MarshalIndent(consent, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(file, append(text, '\n'), 0o600)
}

func names(files []File) (list []string) {
	for _, f := range files {
		list = append(list, f.Name)
	}
	return list
}

// Revoke forgets all that the repository at root, a real path, was allowed. Errors: ErrNotFound.
func (c Consents) Revoke(root string) error {
	file := c.Dir.Consent(root)
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &banger.Error{Kind: banger.ErrNotFound, Op: "allow --revoke", Subject: root, Err: errors.New("nothing is allowed it"), Hint: "banger allow --list"}
	}
	if err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(file))
}

// List gives all consents, by path.
func (c Consents) List() ([]Consent, error) {
	entries, err := os.ReadDir(c.Dir.Consents())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list := []Consent{}
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != ".json" {
			continue
		}
		consent, err := c.read(filepath.Join(c.Dir.Consents(), entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // revoked just now
		}
		if err != nil {
			return nil, err
		}
		list = append(list, consent)
	}
	slices.SortFunc(list, func(a, b Consent) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

func (c Consents) read(file string) (consent Consent, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return consent, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&consent); err != nil {
		return Consent{}, &banger.Error{Kind: banger.ErrCorrupt, Op: "consent", Subject: file, Err: err, Hint: "remove that file: banger asks again"}
	}
	return consent, nil
}

// Digest stands for exactly this question: the repository, its files as they were read, and what they need.
func Digest(p *Project, needs []Need) string {
	text, err := json.Marshal(struct {
		Path  string
		Files []File
		Needs []Need
	}{p.Root, p.Files, needs})
	if err != nil {
		panic(fmt.Sprintf("marshal texts: %v", err))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
