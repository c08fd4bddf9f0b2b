package banger

import (
	"time"
)

// Catalog is what a catalog's index says: the images and kernels that can be had ready-made.
type Catalog struct {
	Version int             `json:"version"` // of the index's format: 1
	Serial  int64           `json:"serial"`  // grows by one with each index that is signed
	Created time.Time       `json:"created"` // when the index was signed
	Expires time.Time       `json:"expires"` // from then on it is refused
	Images  []CatalogImage  `json:"images"`  // one of each name
	Kernels []CatalogKernel `json:"kernels"` // one of each name
}

// Bundle is one file of a catalog.
type Bundle struct {
	Name        string `json:"name"`                  // of the image or kernel that it makes
	Digest      string `json:"digest"`                // sha256 of the bundle, 64 hexadecimal digits
	SizeBytes   int64  `json:"size_bytes"`            // of the bundle, which is compressed
	URL         string `json:"url"`                   // relative to the index, or absolute
	Description string `json:"description,omitempty"` // for people; absent: none was given
}

// CatalogImage is an image of a catalog.
type CatalogImage struct {
	Bundle
	Key    string   `json:"key"`              // of the image
	Kernel string   `json:"kernel,omitempty"` // what its machines boot; empty: the default
	Boot   BootKind `json:"boot"`             // process 1 of its machines: "agent", which is banger-guest, or "system", the image's own init
}

// CatalogKernel is a kernel of a catalog.
type CatalogKernel struct {
	Bundle
	Version string `json:"version"` // uname -r of its machines
}
