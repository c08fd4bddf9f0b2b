package guestagent

import (
	"os"
	"path/filepath"
	"testing"

	"banger"
)

const (
	utcZone    = "TZif2 data\nUTC0\n"
	berlinZone = "TZif2 data\nCET-1CEST,M3.5.0,M10.5.0/3\n"
)

func TestSetZone(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		zone  string
		data  string
		want  string // content of localtime
		named string // content of timezone
	}{
		{"none", nil, "Europe/Berlin", berlinZone, berlinZone, ""},
		{"UTC", map[string]string{"localtime": utcZone, "timezone": "Etc/UTC\n"}, "Europe/Berlin", berlinZone, berlinZone, "Europe/Berlin\n"},
		{"the image knows the zone", map[string]string{"localtime": utcZone, "zoneinfo/Europe/Berlin": "TZif of the image"}, "Europe/Berlin", berlinZone, "TZif of the image", ""},
		{"the image has chosen", map[string]string{"localtime": "TZif2\nEST5\n", "timezone": "EST\n"}, "Europe/Berlin", berlinZone, "TZif2\nEST5\n", "EST\n"},
		{"a way out", map[string]string{"localtime": utcZone}, "../x", berlinZone, utcZone, ""},
		{"the host has UTC", map[string]string{"localtime": utcZone, "timezone": "Etc/UTC\n"}, "UTC", utcZone, utcZone, "Etc/UTC\n"},
		{"no zone data", map[string]string{"localtime": utcZone}, "Europe/Berlin", "text", utcZone, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := files(t, tc.files)
			s := settings{localtime: filepath.Join(dir, "localtime"), timezone: filepath.Join(dir, "timezone"), zoneinfo: filepath.Join(dir, "zoneinfo")}
			for range 2 {
				if err := s.setZone(banger.Locale{TimeZone: tc.zone, ZoneData: []byte(tc.data)}); err != nil {
					t.Fatal(err)
				}
			}
			got, _ := os.ReadFile(s.localtime)
			name, _ := os.ReadFile(s.timezone)
			if string(got) != tc.want || string(name) != tc.named {
				t.Errorf("localtime %q, timezone %q, want %q, %q", got, name, tc.want, tc.named)
			}
		})
	}
}

func TestKnowsLanguage(t *testing.T) {
	dir := files(t, map[string]string{"usr/lib/locale/fr_FR.utf8/LC_CTYPE": "", "usr/lib/locale/ca_ES.utf8@valencia/LC_CTYPE": "", "usr/lib/locale/locale-archive": "head\x00de_DE.utf8\x00tail"})
	for lang, want := range map[string]bool{"fr_FR.UTF-8": true, "de_DE.UTF-8": true, "es_ES.UTF-8": false, "ca_ES.UTF-8@valencia": true, "fr_FR": false, "C.UTF-8": false, "../../x": false, "": false} {
		if got := knowsLanguage(dir, lang); got != want {
			t.Errorf("knowsLanguage(%q) = %v", lang, got)
		}
	}
}
