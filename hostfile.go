package banger

import "time"

// HostFile is a file of the user's that an image boots from, as it was when it was last known to hold the image's bytes.
type HostFile struct {
	Path       string    `json:"path"`        // absolute, without symbolic links
	SizeBytes  int64     `json:"size_bytes"`  // of the file, holes included
	ModTime    time.Time `json:"mod_time"`    // st_mtime
	ChangeTime time.Time `json:"change_time"` // st_ctime: of its inode
	Device     uint64    `json:"device"`      // st_dev of the host's file system that it is on
	Inode      uint64    `json:"inode"`       // st_ino
	Superblock string    `json:"superblock"`  // SHA-256 of the file system's superblock
	SHA256     string    `json:"sha256"`      // of the whole file
}
