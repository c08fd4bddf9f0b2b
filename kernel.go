package banger

import (
	"errors"
	"fmt"
	"time"
)

// Kernel is one unpacked kernel: kernels/<Name>/ in the state directory.
type Kernel struct {
	Name         string          `json:"name"`                     // "debian-cloud"
	Version      string          `json:"version"`                  // uname -r: "6.1.0-42-cloud-amd64"
	Source       string          `json:"source"`                   // package and version it came from
	VmlinuxSHA   string          `json:"vmlinux_sha256"`           // SHA-256 of the kernel image, 64 hexadecimal digits
	VmlinuxBytes int64           `json:"vmlinux_bytes,omitempty"`  // of the kernel image; absent: made before this was noted
	ModulesSHA   string          `json:"modules_sha256,omitempty"` // of modules.ext4
	ModuleCount  int             `json:"module_count,omitempty"`   // files in modules.ext4; absent: none, or made before this was noted
	SizeBytes    int64           `json:"size_bytes"`               // of vmlinux and modules together
	CreatedAt    time.Time       `json:"created_at"`               // when it was made on this computer
	Features     []KernelFeature `json:"features,omitempty"`       // absent: made before this was noted
}

// KernelFeature is something that machines need of a kernel, and how this kernel has it.
type KernelFeature struct {
	Name     string       `json:"name"`               // "virtio-blk"
	State    FeatureState `json:"state"`              // "built-in", "module", "missing", or "unknown" when the kernel came without a list of what is built in
	Required bool         `json:"required,omitempty"` // no machine boots without
}

// FeatureState says how a kernel has a feature.
type FeatureState string

const (
	FeatureBuiltIn FeatureState = "built-in"
	FeatureModule  FeatureState = "module"
	FeatureMissing FeatureState = "missing"
	FeatureUnknown FeatureState = "unknown" // the kernel came without a list of what is built in
)

// KernelSource is what a kernel is imported from: one of the three.
type KernelSource struct {
	Packages []string `json:"packages,omitempty"` // paths of Debian packages that make one kernel together
	Dir      string   `json:"dir,omitempty"`      // path of a directory with a kernel and perhaps its modules
	Host     bool     `json:"host,omitempty"`     // what this computer runs
}

// KernelOffer is a kernel that can be had by its name alone.
type KernelOffer struct {
	Name        string `json:"name"`                  // that pulls it
	Source      string `json:"source"`                // "Debian's package linux-image-cloud-amd64"
	Description string `json:"description,omitempty"` // for people; of a catalog's entry without one, its version
}

var kernelNamePattern = Pattern(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// ValidateKernelName checks the naming rule of kernels. Errors: ErrInvalid.
func ValidateKernelName(name string) error {
	if !kernelNamePattern().MatchString(name) {
		return &Error{Kind: ErrInvalid, Op: "kernel name", Subject: fmt.Sprintf("%.100q", name),
			Err: errors.New("a name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")}
	}
	return nil
}
