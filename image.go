package banger

import "time"

// Image is one immutable base: images/<Key>/ in the state directory.
type Image struct {
	Name        string    `json:"name"`
	Key         string    `json:"key"`        // 64 hexadecimal digits; content key of the base
	Boot        BootKind  `json:"boot"`       // which process 1 the guest gets
	SizeBytes   int64     `json:"size_bytes"` // apparent size of rootfs.ext4
	Description string    `json:"description,omitempty"`
	Source      string    `json:"source"` // where it came from: "packages debian:bookworm"
	CreatedAt   time.Time `json:"created_at"`
}

// BootKind says who is process 1 of the guest.
type BootKind string

const (
	BootAgent  BootKind = "agent"  // banger-guest stays process 1
	BootSystem BootKind = "system" // the image's own init, banger-guest beside it
)

// Kernel is one unpacked kernel: kernels/<Name>/ in the state directory.
type Kernel struct {
	Name       string    `json:"name"`    // "debian-bookworm"
	Version    string    `json:"version"` // uname -r: "6.1.0-42-cloud-amd64"
	Source     string    `json:"source"`  // package and version it came from
	VmlinuxSHA string    `json:"vmlinux_sha256"`
	SizeBytes  int64     `json:"size_bytes"` // of vmlinux and modules together
	CreatedAt  time.Time `json:"created_at"`
}
