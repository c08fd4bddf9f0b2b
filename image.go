package banger

import (
	"errors"
	"fmt"
	"time"
)

// Image is one immutable base: images/<Key>/ in the state directory.
type Image struct {
	Name        string    `json:"name"`                  // that users give: of several images with one name it means the newest
	Key         string    `json:"key"`                   // 64 hexadecimal digits; content key of the base
	Boot        BootKind  `json:"boot"`                  // which process 1 the guest gets
	Kernel      string    `json:"kernel,omitempty"`      // what its machines boot unless told otherwise; empty: the daemon's default
	SizeBytes   int64     `json:"size_bytes"`            // apparent size of rootfs.ext4
	Description string    `json:"description,omitempty"` // for people; absent: none was given
	Missing     []string  `json:"missing,omitempty"`     // files of its definition that could not be got and were left out
	Source      string    `json:"source"`                // where it came from: "packages debian:bookworm"
	CreatedAt   time.Time `json:"created_at"`            // when it was made on this computer

	Config     *ImageConfig `json:"config,omitempty"`     // of an OCI image
	Registered *HostFile    `json:"registered,omitempty"` // the base is this file, and not in the state directory
}

// ImageConfig is what an OCI image says about how to run it
// (https://github.com/opencontainers/image-spec/blob/main/config.md).
type ImageConfig struct {
	Env          []string `json:"env,omitempty"`           // NAME=value
	WorkingDir   string   `json:"working_dir,omitempty"`   // where its program runs; absent: the root
	User         string   `json:"user,omitempty"`          // name or uid, with a group behind a colon if any; absent: root
	Entrypoint   []string `json:"entrypoint,omitempty"`    // what is run, before Cmd; absent: Cmd alone
	Cmd          []string `json:"cmd,omitempty"`           // default arguments of the entrypoint, or the program itself
	ExposedPorts []string `json:"exposed_ports,omitempty"` // "80/tcp"
}

var imageNamePattern = Pattern(`^[a-z0-9]+([._-]+[a-z0-9]+)*$`)

// ValidateImageName checks the naming rule of images that users name. Errors: ErrInvalid.
func ValidateImageName(name string) error {
	if len(name) > 63 || !imageNamePattern().MatchString(name) {
		return &Error{Kind: ErrInvalid, Op: "image name", Subject: fmt.Sprintf("%.100q", name),
			Err: errors.New("a name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-', and begins and ends with a letter or digit")}
	}
	return nil
}

// BootKind says who is process 1 of the guest.
type BootKind string

const (
	BootAgent  BootKind = "agent"  // banger-guest stays process 1
	BootSystem BootKind = "system" // the image's own init, banger-guest beside it
)
