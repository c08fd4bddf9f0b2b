package initrd

import (
	"fmt"
	"maps"
	"strings"

	"banger"
)

// required are what no guest boots without, as modules or built in.
var required = []string{"virtio_mmio", "virtio_blk", "virtio_console", "overlay", "ext4"}

// wanted are taken along where the kernel has them as modules.
var wanted = []string{"virtio_pci", "virtio_net", "virtio_balloon", "virtio_rng", "button", "evdev", "pvpanic_mmio", "vmw_vsock_virtio_transport"}

// Module is what a module says of others in its .modinfo.
type Module struct {
	Name    string   // with underscores
	Depends []string // must be loaded before
	Before  []string // names or aliases that are loaded before where they exist ("softdep: pre")
}

// Lookup gives the modules of a kernel that a name or alias stands for, and whether it is built in.
type Lookup func(name string) (modules []Module, builtIn bool)

// Closure gives the names of the modules that an initrd for this kernel has, each after those it needs.
// Errors: ErrUnsupported for a kernel that lacks what every guest needs; all that it lacks is named.
func Closure(find Lookup) ([]string, error) {
	c := &closure{find: find, seen: map[string]bool{}}
	var missing []string
	for _, name := range required {
		if err := c.add(name); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) > 0 {
		return nil, &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf("the kernel can't run a guest: %s", strings.Join(missing, ", ")),
			Hint: "take a distribution's kernel for virtual machines, such as Debian's linux-image-cloud-amd64"}
	}
	for _, name := range wanted {
		c.try(name)
	}
	return c.order, nil
}

type closure struct {
	find  Lookup
	seen  map[string]bool
	order []string
}

// try adds what name stands for, or nothing.
func (c *closure) try(name string) {
	seen, length := maps.Clone(c.seen), len(c.order)
	if c.add(name) != nil {
		c.seen, c.order = seen, c.order[:length]
	}
}

// add appends the modules that name stands for, and before them what they need.
func (c *closure) add(name string) error {
	modules, builtIn := c.find(name)
	if len(modules) == 0 && !builtIn {
		return fmt.Errorf("no %s", name)
	}
	for _, m := range modules {
		if c.seen[m.Name] {
			continue
		}
		c.seen[m.Name] = true // now, for soft dependencies may run in circles
		for _, other := range m.Before {
			c.try(other)
		}
		for _, other := range m.Depends {
			if err := c.add(other); err != nil {
				return fmt.Errorf("%w, which %s needs", err, m.Name)
			}
		}
		c.order = append(c.order, m.Name)
	}
	return nil
}
