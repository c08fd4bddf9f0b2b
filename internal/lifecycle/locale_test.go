package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
)

func TestHostLocale(t *testing.T) {
	root := t.TempDir()
	berlin := []byte("TZif2 Berlin")
	if err := errors.Join(os.MkdirAll(filepath.Join(root, zoneInfo, "Europe"), 0o755), os.Mkdir(filepath.Join(root, "etc"), 0o755),
		os.WriteFile(filepath.Join(root, zoneInfo, "Europe/Berlin"), berlin, 0o644), os.WriteFile(filepath.Join(root, zoneInfo, "tzdata.zi"), []byte("text"), 0o644),
		os.Symlink("/usr/share/zoneinfo/Europe/Berlin", filepath.Join(root, "etc/localtime"))); err != nil {
		t.Fatal(err)
	}
	linked := banger.Locale{TimeZone: "Europe/Berlin", ZoneData: berlin}
	for _, tc := range []struct {
		name string
		env  map[string]string
		want banger.Locale
	}{
		{"by the link", nil, linked},
		{"by TZ", map[string]string{"TZ": ":Europe/Berlin"}, linked},
		{"a rule in TZ", map[string]string{"TZ": "<+03>-3"}, linked},
		{"an unknown zone", map[string]string{"TZ": "Mars/Phobos"}, banger.Locale{}},
		{"a way out", map[string]string{"TZ": "../../../etc/passwd"}, linked},
		{"no zone file", map[string]string{"TZ": "tzdata.zi"}, linked},
		{"language", map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": "de_DE.UTF-8", "TZ": "Mars/Phobos"}, banger.Locale{Lang: "de_DE.UTF-8"}},
	} {
		if diff := cmp.Diff(tc.want, hostLocale(root, func(name string) string { return tc.env[name] })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}
