package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"banger"
	"banger/internal/debian"
	"banger/internal/proc"
)

// aptPackage is what apt knows of a package that it may download.
type aptPackage struct {
	debian.Paragraph
	name, version string
}

// byApt lets apt get the kernel's package into dir: it has the mirrors, checks signatures and works for any user.
// Errors: ErrUnavailable.
func byApt(ctx context.Context, dir string, tell tellFunc) (path string, err error) {
	pkg, err := resolve(ctx, dir)
	if err != nil {
		return "", err
	}
	total, err := strconv.ParseInt(pkg.Get("Size"), 10, 64)
	if err != nil {
		total = 0 // of use for the progress only
	}
	tell(downloading, 0, total)
	status := &aptStatus{report: func(percent float64) { tell(downloading, int64(percent/100*float64(total)), total) }}
	err = proc.Run(ctx, proc.Command{Path: "apt-get", Args: []string{"download", "-qq", "-o", "APT::Status-Fd=1", pkg.name + "=" + pkg.version},
		Dir: dir, Env: aptEnvironment(), Stdout: status})
	if err != nil {
		return "", aptFailed(ctx, err, "the package mirror may be out of reach, or apt's lists are old: look at the network, or run: sudo apt-get update")
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download gave %d packages: %w", len(found), errors.Join(err, banger.ErrUnavailable))
	}
	return found[0], nil
}

// resolve asks apt which package the meta package stands for.
func resolve(ctx context.Context, dir string) (aptPackage, error) {
	const hint = "banger gets this kernel from Debian's package lists: sudo apt-get update"
	meta, err := show(ctx, dir, metaPackage)
	if err != nil {
		return aptPackage{}, aptFailed(ctx, err, hint)
	}
	if name, version, ok := kernelOf(meta.Get("Depends")); ok {
		if version != "" {
			name += "=" + version
		}
		pkg, err := show(ctx, dir, name)
		if err != nil {
			return aptPackage{}, aptFailed(ctx, err, hint)
		}
		return pkg, nil
	}
	return aptPackage{}, &banger.Error{Kind: banger.ErrUnavailable, Hint: hint, Err: fmt.Errorf("apt's package %s depends on no kernel", metaPackage)}
}

// show gives apt's candidate of a package, "name" or "name=version".
func show(ctx context.Context, dir, wanted string) (aptPackage, error) {
	var out bytes.Buffer
	err := proc.Run(ctx, proc.Command{Path: "apt-cache", Args: []string{"show", "--no-all-versions", wanted}, Dir: dir, Env: aptEnvironment(), Stdout: &out})
	if err != nil {
		return aptPackage{}, err
	}
	found, err := debian.ParseControl(&out)
	if err != nil {
		return aptPackage{}, err
	}
	if len(found) == 0 {
		return aptPackage{}, fmt.Errorf("apt shows no package %s", wanted)
	}
	return aptPackage{found[0], found[0].Get("Package"), found[0].Get("Version")}, nil
}

func aptEnvironment() []string { return append(os.Environ(), "LC_ALL=C.UTF-8") }

// aptFailed gives apt's failure its hint. There is none for a missing program: nobody should install apt elsewhere than on Debian.
func aptFailed(ctx context.Context, err error, hint string) error {
	switch {
	case ctx.Err() != nil:
		return err
	case errors.Is(err, banger.ErrUnavailable):
		return errors.New(err.Error())
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Err: err, Hint: hint}
}

// aptStatus reads apt's status lines, "dlstatus:1:37.5:Retrieving file 1 of 1".
type aptStatus struct {
	report func(percent float64)
	line   []byte
}

const maxStatusLine = 4096

func (s *aptStatus) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			if len(s.line) < maxStatusLine {
				s.line = append(s.line, b)
			}
			continue
		}
		fields := strings.SplitN(string(s.line), ":", 4)
		s.line = s.line[:0]
		if len(fields) < 3 || fields[0] != "dlstatus" {
			continue
		}
		if percent, err := strconv.ParseFloat(fields[2], 64); err == nil && percent >= 0 && percent <= 100 {
			s.report(percent)
		}
	}
	return len(p), nil
}
