package api

import "banger"

// Routes of images that lie elsewhere or are not needed any more.
const (
	RouteImageRegister = "POST /v1/images/register"
	RouteImagePromote  = "POST /v1/images/{ref}/promote"
	RouteImageExport   = "GET /v1/images/{ref}/export"
	RouteImagePrune    = "POST /v1/images/prune"
	RouteCachePrune    = "POST /v1/cache/prune"
)

// ErrorTrailer is the trailer of an answer that is not JSON: a [banger.ErrorBody] when it is not whole.
const ErrorTrailer = "Banger-Error"

// ImageDetail is one image with what it takes and who uses it.
type ImageDetail struct {
	banger.Image
	Dir       string   `json:"dir"`           // the image's directory
	DiskBytes int64    `json:"disk_bytes"`    // that it takes up on the host
	VMs       []string `json:"vms,omitempty"` // names of those whose disks lie on it; absent: none
}

// RegisterRequest asks for an image that stays where it is.
type RegisterRequest struct {
	Name     string          `json:"name"`
	Rootfs   string          `json:"rootfs"`              // absolute path of an ext4 image
	WorkSeed string          `json:"work_seed,omitempty"` // absolute path of an ext4 image or a tar; empty: the image's /root
	Boot     banger.BootKind `json:"boot,omitempty"`
	Kernel   string          `json:"kernel,omitempty"`
}

// PruneRequest asks for the removal of images that no VM uses, or of the cache.
type PruneRequest struct {
	All    bool `json:"all,omitempty"`     // of images: also the newest of each name
	DryRun bool `json:"dry_run,omitempty"` // only tell
}

// Pruned is what was removed, or would be.
type Pruned struct {
	Items  []PrunedItem       `json:"items"`            // empty: there was nothing to remove
	Bytes  int64              `json:"bytes"`            // that this frees
	Failed []banger.ErrorBody `json:"failed,omitempty"` // what could not be removed
}

// PrunedItem is one thing that was removed.
type PrunedItem struct {
	Name   string `json:"name"`          // of the image, or of the directory of what is damaged or left over; of the cache "layer" or "bundle"
	Key    string `json:"key,omitempty"` // of the image, or the digest of what was in the cache; absent: of leftovers
	Reason string `json:"reason"`        // "superseded", "unused", "damaged", "leftover"; of the cache "cached", "partial"
	Bytes  int64  `json:"bytes"`         // that it took up on the host
}
