package mcp

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"banger"
)

// Limits of files, in bytes.
const (
	defaultRead = 64 << 10
	maxRead     = 1 << 20
	maxWrite    = 8 << 20
)

const (
	asText   = "utf-8"
	asBase64 = "base64"
)

type readIn struct {
	ref
	Path   string `json:"path" jsonschema:"absolute path in the VM; a symbolic link is followed"`
	Offset int64  `json:"offset,omitempty" jsonschema:"byte to begin at (default: 0)"`
	Limit  int    `json:"limit,omitempty" jsonschema:"bytes at most: 1 to 1048576 (default: 65536)"`
}

type readOut struct {
	Content    string `json:"content" text:"exact" jsonschema:"the bytes of the file, exactly, in the encoding that is named"`
	Encoding   string `json:"encoding" jsonschema:"utf-8, or base64 for what is no plain text"`
	Size       int64  `json:"size" jsonschema:"bytes of the whole file"`
	Mode       string `json:"mode" jsonschema:"permissions, octal: 0644"`
	NextOffset int64  `json:"next_offset" jsonschema:"where to read on"`
	End        bool   `json:"end" jsonschema:"there is nothing after this"`
}

type writeIn struct {
	ref
	Path     string `json:"path" jsonschema:"absolute path in the VM; a file that is there is replaced as a whole, directories that are missing are made"`
	Content  string `json:"content" jsonschema:"what the file is to hold, at most 8 MiB"`
	Encoding string `json:"encoding,omitempty" jsonschema:"of content: utf-8 or base64 (default: utf-8)"`
	Mode     string `json:"mode,omitempty" jsonschema:"permissions, octal (default: those of the file that is replaced, else 0644)"`
}

type writeOut struct {
	Path  string `json:"path" jsonschema:"the file in the VM"`
	Bytes int64  `json:"bytes" jsonschema:"size of the file"`
	Mode  string `json:"mode" jsonschema:"permissions, octal"`
	beside
}

func (s *Server) fileTools() {
	add(s, about{name: "vm_read_file", title: "Read a file in a VM", reads: true, repeatable: true, host: "nothing",
		text: `Read a file in a VM, or a part of it. The VM need not run. For lists of directories: vm_exec with ls or find.`}, readFile)
	add(s, about{name: "vm_write_file", title: "Write a file in a VM", destroys: true, repeatable: true, host: "nothing",
		text: `Write a file in a VM: it is replaced as a whole, or made, and belongs to the VM's user. A VM that does not run is started for it, without its services, and stopped again.`}, writeFile)
}

func guestPath(name string) error {
	if !strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) || path.Clean(name) == "/" {
		return banger.Invalidf("path %.200q: want an absolute path in the VM", name)
	}
	return nil
}

var errEnough = errors.New("enough is read")

func readFile(ctx context.Context, c *call, in readIn) (out readOut, err error) {
	if in.Limit == 0 {
		in.Limit = defaultRead
	}
	if in.Limit < 0 || in.Limit > maxRead || in.Offset < 0 {
		return out, banger.Invalidf("want an offset from 0 on, and a limit of 1 to %d", maxRead)
	}
	if err := guestPath(in.Path); err != nil {
		return out, err
	}
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return out, err
	}
	part, header, err := c.part(ctx, string(vm.ID), in.Path, in.Offset, in.Limit)
	if err != nil {
		return out, err
	}
	out.Size, out.Mode = header.Size, octal(header.Mode)
	if in.Offset+int64(len(part)) < out.Size && plain(part[:wholeEnd(part)]) {
		part = part[:wholeEnd(part)]
	}
	out.NextOffset = in.Offset + int64(len(part))
	out.End = out.NextOffset >= out.Size
	out.Content, out.Encoding = string(part), asText
	if !plain(part) {
		out.Content, out.Encoding = base64.StdEncoding.EncodeToString(part), asBase64
	}
	return out, nil
}

// part reads a part of a file.
func (c *call) part(ctx context.Context, id, name string, offset int64, limit int) (part []byte, header *tar.Header, err error) {
	r, w := io.Pipe()
	copied := make(chan error, 1)
	go func() {
		err := c.CopyOut(ctx, id, name, w)
		w.CloseWithError(err)
		copied <- err
	}()
	in := tar.NewReader(r)
	header, err = in.Next()
	switch {
	case err != nil:
	case header.Typeflag == tar.TypeDir:
		err = &banger.Error{Kind: banger.ErrInvalid, Op: "read", Subject: name, Err: errors.New("it is a directory"), Hint: "vm_exec with ls"}
	case header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeGNUSparse:
		err = &banger.Error{Kind: banger.ErrInvalid, Op: "read", Subject: name, Err: errors.New("it is no regular file")}
	default:
		if _, err = io.CopyN(io.Discard, in, min(offset, header.Size)); err == nil {
			part, err = io.ReadAll(io.LimitReader(in, int64(limit)))
		}
	}
	r.CloseWithError(errEnough)
	if end := <-copied; end != nil && !errors.Is(end, errEnough) {
		return nil, nil, end
	}
	if errors.Is(err, io.EOF) {
		err = &banger.Error{Kind: banger.ErrInvalid, Op: "read", Subject: name, Err: errors.New("it is no regular file")}
	}
	return part, header, err
}

// plain tells whether bytes are text that can be shown as it is.
func plain(b []byte) bool {
	return utf8.Valid(b) && bytes.IndexFunc(b, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' }) < 0
}

func octal(mode int64) string { return fmt.Sprintf("%04o", mode&0o7777) }

func writeFile(ctx context.Context, c *call, in writeIn) (out writeOut, err error) {
	content := []byte(in.Content)
	switch in.Encoding {
	case "", asText:
	case asBase64:
		if content, err = base64.StdEncoding.DecodeString(in.Content); err != nil {
			return out, banger.Invalidf("content: %v", err)
		}
	default:
		return out, banger.Invalidf("encoding %.20q: want utf-8 or base64", in.Encoding)
	}
	if len(content) > maxWrite {
		return out, banger.Invalidf("content: it has more than 8 MiB")
	}
	mode := int64(-1)
	if in.Mode != "" {
		if mode, err = strconv.ParseInt(in.Mode, 8, 64); err != nil || mode < 0 || mode > 0o777 {
			return out, banger.Invalidf("mode %.20q: want three octal digits, such as 0644", in.Mode)
		}
	}
	if err := guestPath(in.Path); err != nil || strings.HasSuffix(in.Path, "/") {
		return out, banger.Invalidf("path %.200q: want the absolute path of a file in the VM", in.Path)
	}
	vm, err := c.vm(ctx, in.VM)
	if err != nil {
		return out, err
	}
	id, name := string(vm.ID), path.Clean(in.Path)
	if mode < 0 {
		mode = 0o644
		if _, header, err := c.part(ctx, id, name, 0, 0); err == nil {
			mode = header.Mode & 0o777
		}
	}
	var missing []string
	dir := path.Dir(name)
	for {
		err = c.CopyIn(ctx, id, dir, oneFile(missing, path.Base(name), mode, content))
		if dir == "/" || !errors.Is(err, banger.ErrNotFound) {
			break
		}
		dir, missing = path.Dir(dir), slices.Insert(missing, 0, path.Base(dir))
	}
	return writeOut{Path: name, Bytes: int64(len(content)), Mode: octal(mode), beside: c.told()}, err
}

// oneFile is a tar of a file below directories, each in the one before.
func oneFile(dirs []string, name string, mode int64, content []byte) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	now, at := time.Now(), ""
	for _, dir := range dirs {
		at = path.Join(at, dir)
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: at + "/", Mode: 0o755, ModTime: now, Format: tar.FormatPAX}) // to memory
	}
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(at, name), Mode: mode, Size: int64(len(content)), ModTime: now, Format: tar.FormatPAX})
	_, _ = w.Write(content)
	_ = w.Close()
	return &b
}
