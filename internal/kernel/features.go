package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"banger"
	"banger/internal/initrd"
)

// feature is one thing that machines need: a module, or an option of the kernel's build, or either. Of several options one is
// enough: names change.
type feature struct {
	name     string
	module   string // as the kernel calls it; empty for what can be no module
	options  []string
	required bool // no guest boots without; the modules among these are what initrd.Closure insists on
}

var features = []feature{
	{"virtio-mmio", "virtio_mmio", []string{"VIRTIO_MMIO"}, true},
	{"virtio-blk", "virtio_blk", []string{"VIRTIO_BLK"}, true},
	{"virtio-console", "virtio_console", []string{"VIRTIO_CONSOLE"}, true},
	{"overlay", "overlay", []string{"OVERLAY_FS"}, true},
	{"ext4", "ext4", []string{"EXT4_FS"}, true},
	{"initrd", "", []string{"BLK_DEV_INITRD"}, true},
	{"devtmpfs", "", []string{"DEVTMPFS"}, true},
	{"acpi", "", []string{"ACPI"}, true}, // the VMM lists its devices there
	{"serial-console", "8250", []string{"SERIAL_8250_CONSOLE"}, false},
	{"virtio-net", "virtio_net", []string{"VIRTIO_NET"}, false},
	{"virtio-balloon", "virtio_balloon", []string{"VIRTIO_BALLOON"}, false},
	{"virtio-rng", "virtio_rng", []string{"HW_RANDOM_VIRTIO"}, false},
	{"vsock", "vmw_vsock_virtio_transport", []string{"VIRTIO_VSOCKETS"}, false},
	{"fuse", "fuse", []string{"FUSE_FS"}, false},
	{"veth", "veth", []string{"VETH"}, false},
	{"bridge", "bridge", []string{"BRIDGE"}, false},
	{"nf-tables", "nf_tables", []string{"NF_TABLES"}, false},
	{"iptables", "ip_tables", []string{"IP_NF_IPTABLES", "IP_NF_IPTABLES_LEGACY"}, false},
	{"tun", "tun", []string{"TUN"}, false},
}

// pvhEntry is how VMMs start a kernel. It is checked where vmlinux is unpacked: no kernel without it gets further.
var pvhEntry = banger.KernelFeature{Name: "pvh-entry", State: banger.FeatureBuiltIn, Required: true}

const noKernelForGuests = "take a distribution's kernel for virtual machines, such as Debian's linux-image-cloud-amd64"

// inspect tells how a kernel has each feature. config may be nil.
// Errors: ErrUnsupported for a kernel that is known to lack what every guest needs; all that it lacks is named.
func (c *catalog) inspect(config buildConfig) ([]banger.KernelFeature, error) {
	find := c.lookup(nil)
	found := []banger.KernelFeature{pvhEntry}
	var missing []string
	for _, f := range features {
		state := c.state(f, find, config)
		found = append(found, banger.KernelFeature{Name: f.name, State: state, Required: f.required})
		if f.required && state == banger.FeatureMissing {
			missing = append(missing, "no "+f.name)
		}
	}
	if missing == nil {
		return found, nil
	}
	hint := noKernelForGuests
	if len(c.modules) == 0 {
		hint = "it came without modules, which may have what is missing: import them with it"
	}
	return nil, &banger.Error{Kind: banger.ErrUnsupported, Hint: hint, Err: errors.New("the kernel can't run a guest: " + strings.Join(missing, ", "))}
}

func (c *catalog) state(f feature, find initrd.Lookup, config buildConfig) banger.FeatureState {
	if f.module != "" {
		modules, builtIn := find(f.module)
		if len(modules) > 0 {
			return banger.FeatureModule
		}
		if builtIn {
			return banger.FeatureBuiltIn
		}
	}
	for _, option := range f.options {
		if config[option] == 'y' {
			return banger.FeatureBuiltIn
		}
	}
	if config == nil && (f.module == "" || !c.listed) {
		return banger.FeatureUnknown
	}
	return banger.FeatureMissing
}

// bootModules gives the modules of the initrd, in load order. What may be built in for all that is known is taken to be.
func (c *catalog) bootModules(found []banger.KernelFeature) ([]string, error) {
	inside := map[string]bool{}
	for _, f := range features {
		for _, known := range found {
			if known.Name == f.name && (known.State == banger.FeatureBuiltIn || known.State == banger.FeatureUnknown) {
				inside[f.module] = true
			}
		}
	}
	return initrd.Closure(c.lookup(inside))
}

// checkBuild refuses boot modules of another kernel: each says for which one it was built.
func (c *catalog) checkBuild(release string, boot []string) error {
	for _, m := range c.modules {
		for _, magic := range m.values("vermagic") {
			built, _, _ := strings.Cut(magic, " ")
			if built != release && slices.Contains(boot, m.name) {
				return fmt.Errorf("%w: the kernel is %s, its module %s is of %.80q", banger.ErrUnsupported, release, m.name, built)
			}
		}
	}
	return nil
}
