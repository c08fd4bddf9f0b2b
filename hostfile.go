package banger

import "time"

// HostFile is a file of the user's that an image boots from, as it was when it was last known to hold the image's bytes.
type HostFile struct {
	Path       string    `json:"path"` // absolute, without symbolic links
	SizeBytes  int64     `json:"size_bytes"`
	ModTime    time.Time `json:"mod_time"`
	ChangeTime time.Time `json:"change_time"`
	Device     uint64    `json:"device"`
	Inode      uint64    `json:"inode"`
	Superblock string    `json:"superblock"` // SHA-256 of the file system's superblock
	SHA256     string    `json:"sha256"`     // of the whole file
}
