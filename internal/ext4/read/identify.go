package read

import (
	"bytes"
	"errors"

	"banger"
)

// identifyBytes is how much of an image identify looks at.
const identifyBytes = 68 << 10

// signatures of what people take for an ext4 image. Order matters: a disk with a partition table may begin with anything.
var signatures = []struct {
	offset int
	magic  string
	name   string
	hint   string
}{
	{0, "QFI\xfb", "a qcow2 image", "convert it: qemu-img convert -O raw"},
	{0, "KDMV", "a VMDK image", "convert it: qemu-img convert -O raw"},
	{0, "vhdxfile", "a VHDX image", "convert it: qemu-img convert -O raw"},
	{0, "conectix", "a VHD image", "convert it: qemu-img convert -O raw"},
	{64, "\x7f\x10\xda\xbe", "a VDI image", "convert it: qemu-img convert -O raw"},
	{0, "\x1f\x8b", "gzip data", "unpack it first"},
	{0, "\x28\xb5\x2f\xfd", "zstd data", "unpack it first"},
	{0, "\xfd7zXZ\x00", "xz data", "unpack it first"},
	{0, "BZh", "bzip2 data", "unpack it first"},
	{0, "\x04\x22\x4d\x18", "lz4 data", "unpack it first"},
	{0, "PK\x03\x04", "a zip archive", "unpack it first"},
	{0, "LUKS\xba\xbe", "a LUKS encrypted volume", ""},
	{0, "XFSB", "an XFS file system", ""},
	{0, "hsqs", "a squashfs file system", ""},
	{0, "\x7fELF", "an ELF program", ""},
	{0, "070701", "a cpio archive", ""},
	{3, "NTFS    ", "an NTFS file system", ""},
	{3, "EXFAT   ", "an exFAT file system", ""},
	{54, "FAT1", "a FAT file system", ""},
	{82, "FAT32", "a FAT file system", ""},
	{257, "ustar", "a tar archive", ""},
	{1024, "\xe2\xe1\xf5\xe0", "an EROFS file system", ""},
	{1024, "\x10\x20\xf5\xf2", "an F2FS file system", ""},
	{4086, "SWAPSPACE2", "swap space", ""},
	{32769, "CD001", "an ISO 9660 image", ""},
	{65600, "_BHRfS_M", "a btrfs file system", ""},
	{512, "LABELONE", "an LVM physical volume", ""},
	{512, "EFI PART", "a disk with GPT partitions", "copy the partition out of it first"},
	{4096, "EFI PART", "a disk with GPT partitions", "copy the partition out of it first"},
	{510, "\x55\xaa", "a disk with MBR partitions", "copy the partition out of it first"},
}

func notExt4(head []byte, size int64) error {
	name, hint := "unknown data", ""
	switch {
	case size <= 0:
		name = "empty"
	case len(bytes.TrimLeft(head, "\x00")) == 0:
		name = "zeros only, as far as was looked"
	}
	for _, s := range signatures {
		if len(head) >= s.offset && bytes.HasPrefix(head[s.offset:], []byte(s.magic)) {
			name, hint = s.name, s.hint
			break
		}
	}
	return &banger.Error{Kind: banger.ErrUnsupported, Hint: hint, Err: errors.New("no ext4 file system: it is " + name)}
}
