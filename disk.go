package banger

// DiskLayoutVersion is the content of the file /layout on a VM's disk. The guest refuses a version that it does not know.
const DiskLayoutVersion = 1

// Directories of a VM's disk. Upper and work belong to the root overlay; the bind directories are mounted over it.
const (
	DiskLayoutFile = "layout"
	DiskSyncFile   = "sync.json" // marks of the synced files by their paths in the guest, as the last start left them
	DiskUpperDir   = "overlay/upper"
	DiskWorkDir    = "overlay/work"
)

// Serials by which the guest finds its drives (virtio serial numbers, at most 20 bytes).
const (
	DriveBase    = "base"
	DriveModules = "modules"
	DriveDisk    = "disk"
)

// DiskBind is a plain ext4 directory of the disk that is mounted over a directory of the root overlay.
type DiskBind struct {
	Dir    string // on the disk
	Target string // absolute, in the guest
	Mode   uint32 // permission bits with the sticky bit (01777)
}

// DiskBinds is every bind, in mount order. Databases and container engines need a file system that is no overlay.
var DiskBinds = []DiskBind{
	{"data/root", "/root", 0o700},
	{"data/home", "/home", 0o755},
	{"data/tmp", "/tmp", 0o1777},
	{"data/var-tmp", "/var/tmp", 0o1777},
	{"data/docker", "/var/lib/docker", 0o710},
	{"data/containerd", "/var/lib/containerd", 0o711},
	{"data/containers", "/var/lib/containers", 0o755},
	{"data/buildkit", "/var/lib/buildkit", 0o711},
	{"data/rancher", "/var/lib/rancher", 0o755},
	{"data/kubelet", "/var/lib/kubelet", 0o750},
	{"data/machines", "/var/lib/machines", 0o700},
}
