// Package initrd makes the first root file system of a guest: the guest's program as /init, the modules that its drives and its
// channel need, and the order to load them in. The same input gives the same bytes.
//
// closure.go says which modules, cpio.go writes the archive, uncompressed: the kernel reads it as it is.
package initrd

import (
	"fmt"
	"io"
	"strings"
)

// Places in the archive that the guest's program knows.
const (
	initPath   = "init"
	modulesDir = "modules"
	orderPath  = modulesDir + "/order" // one file name of modulesDir a line, in load order
)

// Input is what goes into an initrd.
type Input struct {
	Guest   Content
	Modules []ModuleFile // in load order
}

// ModuleFile is one uncompressed module.
type ModuleFile struct {
	Name string // "virtio_blk"
	Content
}

// Content is Size bytes from Reader.
type Content struct {
	Reader io.Reader
	Size   int64
}

// Build writes the archive. It reads each content once, in order; one that has not exactly its size is an error.
func Build(w io.Writer, in Input) error {
	var order strings.Builder
	for _, m := range in.Modules {
		order.WriteString(m.Name + ".ko\n")
	}
	c := &cpioWriter{w: w}
	c.dir("dev")
	c.charDevice("dev/console", 0o600, 5, 1)
	c.dir(modulesDir)
	c.file(orderPath, 0o644, Content{strings.NewReader(order.String()), int64(order.Len())})
	for _, m := range in.Modules {
		c.file(modulesDir+"/"+m.Name+".ko", 0o644, m.Content)
	}
	c.file(initPath, 0o755, in.Guest)
	if err := c.close(); err != nil {
		return fmt.Errorf("build initrd: %w", err)
	}
	return nil
}
