package machine

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"banger"
	"banger/internal/proc"
	"banger/internal/statedir"
)

func TestIDIn(t *testing.T) {
	for text, want := range map[string]banger.VMID{
		"": "", "/s/vms/": "", "/s/vms/short": "", "--config\x00/s/vms/0123456789ab/machine.json": "0123456789ab", "/s/vms/zzz /s/vms/abcdefabcdef": "abcdefabcdef",
		"/x/vms/0123456789ab": "",
	} {
		if got, ok := idIn(text, "/s/vms/"); got != want || ok != (want != "") {
			t.Errorf("idIn(%q) = %q, %v, want %q", text, got, ok, want)
		}
	}
}

func TestReadHandles(t *testing.T) {
	dir := statedir.VMDir{Path: t.TempDir()}
	if _, err := ReadHandles(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	want := Handles{Supervisor: proc.Handle{PID: 7, StartTime: 8, BootID: "b"}, VMM: proc.Handle{PID: 9, StartTime: 10, BootID: "b"}, Attempt: 2, Ready: true}
	if err := WriteHandles(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadHandles(dir); err != nil || got != want {
		t.Errorf("ReadHandles = %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "{", "{}", "null", "\x00\x00", `{"supervisor":{"pid":"one"}}`, `{"supervisor":{"pid":-1}}`} {
		if err := os.WriteFile(dir.Handles(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadHandles(dir); !errors.Is(err, banger.ErrCorrupt) || got != (Handles{}) {
			t.Errorf("%q: %+v, %v, want corrupt", text, got, err)
		}
	}
}
