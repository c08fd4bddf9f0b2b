package guestagent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/fence"
)

// caFile is where Debian's, Alpine's and Arch's own tools find a certificate when they make the list of those that are trusted.
const caFile = "/usr/local/share/ca-certificates/banger.crt"

// bundles are the lists that programs read, by distribution.
var bundles = []string{"etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem", "etc/ssl/cert.pem"}

// trustCA puts certificates into every list below root ("/"), once; an image without one gets the first. Without certificates those of an
// earlier start go.
func trustCA(root, pem string) error {
	own := filepath.Join(root, caFile)
	if pem == "" {
		if _, err := os.Stat(own); err != nil {
			return nil
		}
		return errors.Join(os.Remove(own), editBundles(root, fence.Remove))
	}
	if pem[len(pem)-1] != '\n' {
		pem += "\n"
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		return err
	}
	if err := writeChanged(own, pem); err != nil {
		return err
	}
	return editBundles(root, func(text string) (string, error) { return fence.Put(text, "a start without certificates", pem) })
}

func editBundles(root string, change func(string) (string, error)) error {
	var failed []error
	seen := map[string]bool{}
	for _, name := range bundles {
		path, err := filepath.EvalSymlinks(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !seen[path] {
			seen[path] = true
			_, err = fence.Edit(path, 0o644, change)
		}
		failed = append(failed, err)
	}
	if len(seen) == 0 {
		path := filepath.Join(root, bundles[0])
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			_, err = fence.Edit(path, 0o644, change)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
