package project

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger"
)

// findCopies gives the paths of this computer that are copied as they are shown and asked about: below the home, with symbolic links
// followed. What devcontainer.json mounts from elsewhere is left out and told. Errors: ErrInvalid.
func (p *Project) findCopies(home string) error {
	s := &p.Settings
	var found []banger.FileSync
	for _, f := range s.Copies {
		one, err := p.findCopy(f, home)
		switch {
		case err == nil:
			found = append(found, one)
		case s.From[KeyCopies] == TOMLFile:
			return invalid(TOMLFile, 0, banger.HintOf(err), err)
		default:
			p.Notices = append(p.Notices, fmt.Sprintf("%s: mounts: %.200s is not copied: %v", s.From[KeyCopies], f.Host, err))
		}
	}
	s.Copies = found
	if len(found) == 0 {
		delete(s.From, KeyCopies)
	}
	return nil
}

// findCopy replaces what may stand for the home. Other variables of the environment have no place in a path that is shown and remembered.
func (p *Project) findCopy(f banger.FileSync, home string) (banger.FileSync, error) {
	f.Host = replace(f.Host, func(kind string, args []string) (string, bool) {
		if (kind == "localEnv" || kind == "env") && len(args) == 1 && args[0] == "HOME" {
			return home, true
		}
		return Values{Root: p.Root}.replace(kind, args)
	})
	if strings.Contains(f.Host+f.Guest, "${") {
		return f, errors.New("of variables only ${localEnv:HOME} and ${localWorkspaceFolder} can stand in a path of this computer, and none in a path of the VM")
	}
	if rest, ok := strings.CutPrefix(f.Guest, "/home/"+p.Settings.User+"/"); ok && p.Settings.User != "" {
		f.Guest = "~/" + rest
	}
	below, guest, err := f.Paths(home)
	if err != nil {
		return f, err
	}
	realHome, err := filepath.EvalSymlinks(home)
	if err != nil {
		return f, err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(home, below))
	if errors.Is(err, os.ErrNotExist) {
		real, err = filepath.Join(realHome, below), nil
	}
	if err != nil {
		return f, err
	}
	f.Host = "~/" + strings.TrimPrefix(real, realHome+"/")
	if real == p.Root || strings.HasPrefix(real, p.Root+"/") {
		// What is read is read anew at each start: there a link to elsewhere could be in its place by then.
		return f, errors.New("it lies in the repository, which goes in itself")
	}
	if !strings.HasPrefix(real, realHome+"/") {
		return f, fmt.Errorf("it leads to %s, which is not in your home", real)
	}
	f.Guest = guest
	return f, nil
}
