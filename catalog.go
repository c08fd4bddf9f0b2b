package banger

import (
	"time"
)

// Catalog is what a catalog's index says: the images and kernels that can be had ready-made.
type Catalog struct {
	Version int             `json:"version"`
	Serial  int64           `json:"serial"` // grows by one with each index that is signed
	Created time.Time       `json:"created"`
	Expires time.Time       `json:"expires"`
	Images  []CatalogImage  `json:"images"`
	Kernels []CatalogKernel `json:"kernels"`
}

// Bundle is one file of a catalog.
type Bundle struct {
	Name        string `json:"name"`
	Digest      string `json:"digest"` // sha256 of the bundle, 64 hexadecimal digits
	SizeBytes   int64  `json:"size_bytes"`
	URL         string `json:"url"` // relative to the index, or absolute
	Description string `json:"description,omitempty"`
}

// CatalogImage is an image of a catalog.
type CatalogImage struct {
	Bundle
	Key    string   `json:"key"`              // of the image
	Kernel string   `json:"kernel,omitempty"` // what its machines boot; empty: the default
	Boot   BootKind `json:"boot"`
}

// CatalogKernel is a kernel of a catalog.
type CatalogKernel struct {
	Bundle
	Version string `json:"version"`
}
