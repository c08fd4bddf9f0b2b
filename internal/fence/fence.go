// Package fence keeps a block of lines of banger's own in a text file that is somebody else's.
//
// The block stands between two marker lines. To put it in and to take it out again gives the same bytes as before, whatever
// the file holds; what is outside of the block is never read as anything but bytes.
package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
)

// Marker lines; both formats that banger writes into, ssh_config(5) and hosts(5), take them for comments.
const (
	begin = "# banger: begin; these lines are banger's, and are removed by: "
	end   = "# banger: end"
)

// maxFile bounds what is edited.
const maxFile = 4 << 20

var errDamaged = errors.New("it has the first line of banger's block without its last, or the last without its first")

// split takes text apart around the first block. Errors: errDamaged.
func split(text string) (before, block, after string, err error) {
	start, stop := -1, -1
	at := 0
	for line := range strings.Lines(text) {
		content := strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(content, begin) && start >= 0, content == end && start < 0:
			return "", "", "", errDamaged
		case strings.HasPrefix(content, begin):
			start = at
		case content == end:
			stop = at + len(line)
			return text[:start], text[start:stop], text[stop:], nil
		}
		at += len(line)
	}
	if start >= 0 {
		return "", "", "", errDamaged
	}
	return text, "", "", nil
}

// Has tells whether text has a block.
func Has(text string) bool {
	_, block, _, err := split(text)
	return err == nil && block != ""
}

// Body gives the lines in the block of text; none when it has no block.
func Body(text string) string {
	_, block, _, err := split(text)
	if err != nil || block == "" {
		return ""
	}
	_, body, _ := strings.Cut(block, "\n")
	return body[:strings.LastIndex(body, end)]
}

// Put gives text with body, whole lines, in its block: where one stands already, else at the beginning. undo is the command
// that takes it out. A text that has just this block is given back as it is.
func Put(text, undo, body string) (string, error) {
	before, block, after, err := split(text)
	if err != nil {
		return "", err
	}
	own := begin + undo + "\n" + body + end + "\n"
	if block == "" {
		return own + text, nil
	}
	rest, err := Remove(after)
	if err != nil {
		return "", err
	}
	return before + own + rest, nil
}

// Remove gives text without its blocks.
func Remove(text string) (string, error) {
	var kept strings.Builder
	for {
		before, block, after, err := split(text)
		if err != nil {
			return "", err
		}
		kept.WriteString(before)
		if block == "" {
			return kept.String(), nil
		}
		text = after
	}
}

// Edit replaces the file at path by what change makes of its text, at once or not at all; mode and owner stay. A missing file is
// an empty text, made with perm; one that becomes empty is removed. changed is false when there was nothing to do.
// Errors: ErrRefused, and the file is left alone, when it is a symbolic link, no regular file, or not ours to write.
func Edit(path string, perm fs.FileMode, change func(text string) (string, error)) (changed bool, err error) {
	old, info, err := open(path)
	if err != nil {
		return false, err
	}
	missing := info == nil
	if !missing {
		perm = info.Mode().Perm()
	}
	text, err := change(old)
	if err != nil {
		return false, refuse(path, err)
	}
	if text == old {
		return false, nil
	}
	if now, statErr := os.Lstat(path); !missing && (statErr != nil || !now.ModTime().Equal(info.ModTime()) || now.Size() != info.Size()) {
		return false, refuse(path, errors.New("it has been changed just now"))
	}
	if text == "" {
		err = errors.Join(os.Remove(path), atomicfile.SyncDir(filepath.Dir(path)))
	} else if err = atomicfile.Write(path, []byte(text), perm); err == nil && !missing {
		err = keepOwner(path, info)
	}
	if err != nil {
		return false, refuse(path, err)
	}
	return true, nil
}

// Check says why Edit would leave the file at path alone. Errors: ErrRefused.
func Check(path string) error {
	text, _, err := open(path)
	if err == nil {
		if _, err = Remove(text); err != nil {
			err = refuse(path, err)
		}
	}
	return err
}

func refuse(path string, err error) error {
	return &banger.Error{Kind: banger.ErrRefused, Op: "edit", Subject: path, Err: err}
}

// open reads a file that is to be edited. A missing one has no info. Errors: ErrRefused.
func open(path string) (text string, info fs.FileInfo, err error) {
	info, err = os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil, nil
	case err != nil:
	case info.Mode()&fs.ModeSymlink != 0:
		err = errors.New("it is a symbolic link, which is left alone")
	case !info.Mode().IsRegular():
		err = errors.New("it is no regular file")
	case info.Size() > maxFile:
		err = fmt.Errorf("it has more than %s", banger.FormatSize(maxFile))
	default:
		var old []byte
		if old, err = os.ReadFile(path); err == nil {
			err = unix.Access(path, unix.W_OK)
		}
		text = string(old)
	}
	if err != nil {
		return "", nil, refuse(path, err)
	}
	return text, info, nil
}

// keepOwner gives the new file to whom the old one belonged, when root has made it.
func keepOwner(path string, old fs.FileInfo) error {
	st := old.Sys().(*syscall.Stat_t)
	if os.Getuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}
