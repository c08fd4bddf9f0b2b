package smoke

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testenv"
)

// One VM is renamed while it runs, gets another size and a larger disk, is restarted and killed; what it holds stays.
func TestChangesOfOneVM(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "devbox", "--disk-size", "1G", "--memory", "512", "--env", "A=1")
	w.Must("vm", "start", "devbox")
	in := func(script string) string { return w.Must("vm", "exec", "devbox", "--", "sh", "-c", script) }
	sum := in("head -c 20000000 /dev/urandom > /root/data; echo system > /etc/kept; sync; sha256sum < /root/data")
	diskMiB := func(name string) int {
		n, err := strconv.Atoi(strings.TrimSpace(w.Must("vm", "exec", name, "--", "sh", "-c", "df -m /root | tail -1 | awk '{print $2}'")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if mib := diskMiB("devbox"); mib > 1024 {
		t.Fatalf("a disk of 1 GiB has %d MiB", mib)
	}

	w.Must("vm", "rename", "devbox", "webbox")
	if got := w.Must("vm", "exec", "webbox", "--", "sh", "-c", "hostname; cat /etc/hostname; grep -c webbox /etc/hosts"); got != "webbox\nwebbox\n1\n" {
		t.Errorf("after the rename the guest says %q", got)
	}
	wantStatus(t, w.Run("vm", "exec", "devbox", "--", "true"), 125, "devbox")

	r := w.Run("vm", "set", "--vcpu", "2", "--memory", "768", "--disk-size", "20G", "--env", "A=2", "--label", "team=blue", "webbox")
	wantStatus(t, r, 0, "4 changes at its next start")
	if row := showVM(w, "webbox"); row.Spec.VCPU != 1 || row.Spec.DiskBytes != 1<<30 || row.Spec.Labels["team"] != "blue" {
		t.Errorf("while it runs: %+v", row.Spec)
	}
	w.Must("vm", "restart", "webbox")
	got := w.Must("vm", "exec", "webbox", "--", "sh", "-c", "nproc; hostname; cat /etc/kept; echo $A; sha256sum < /root/data")
	if got != "2\nwebbox\nsystem\n2\n"+sum {
		t.Errorf("after the restart the guest says %q, want the same data %q", got, sum)
	}
	if mib := diskMiB("webbox"); mib < 19*1024 {
		t.Errorf("the disk has %d MiB after it has grown to 20 GiB", mib)
	}
	// New inode tables are zeros, which the host does not keep.
	var file unix.Stat_t
	if err := unix.Stat(showVM(w, "webbox").Dir+"/disk.ext4", &file); err != nil || file.Size != 20<<30 || file.Blocks*512 > 200<<20 {
		t.Errorf("the disk's file: %d bytes, %d MiB of them on the host, %v", file.Size, file.Blocks>>11, err)
	}
	t.Logf("%d MiB on the host", file.Blocks>>11)
	// Blocks far behind the old end are of use.
	w.Must("vm", "exec", "webbox", "--", "sh", "-c", "fallocate -l 15G /root/more && dd if=/root/data of=/root/more bs=1M seek=15000 conv=notrunc,fsync 2>/dev/null && rm /root/more && touch /root/after && sync")

	w.Must("vm", "kill", "webbox")
	row := showVM(w, "webbox")
	if row.State != banger.StateStopped || row.Exit == nil || row.Exit.Cause != banger.ExitKilled || row.Spec.DiskBytes != 20<<30 {
		t.Errorf("after the kill: %+v", row)
	}
	wantStatus(t, w.Run("vm", "set", "--disk-size", "2G", "webbox"), 4, "20 GiB", "2 GiB")
	w.Must("vm", "start", "webbox")
	if got := w.Must("vm", "exec", "webbox", "--", "sh", "-c", "ls /root/after; sha256sum < /root/data"); got != "/root/after\n"+sum {
		t.Errorf("after the kill and a start the guest says %q", got)
	}

	w.Must("vm", "kill", "--signal", "TERM", "webbox")
	if got := w.Must("vm", "wait", "webbox"); !strings.HasPrefix(got, "webbox: stopped (killed: ") {
		t.Errorf("vm wait after a signal: %q", got)
	}
	w.Must("vm", "start", "webbox")
	w.Must("vm", "stop", "webbox")
	testenv.CheckExt4(t, row.Dir+"/disk.ext4")
}
