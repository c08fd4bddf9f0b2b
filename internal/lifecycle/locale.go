package lifecycle

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"banger"
)

const (
	zoneInfo    = "usr/share/zoneinfo"
	maxZoneData = 64 << 10
)

// zoneName matches the names below /usr/share/zoneinfo.
var zoneName = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$`)

// hostLocale finds out the user's time zone and language: by the environment, else by what is below root ("/").
func hostLocale(root string, getenv func(string) string) banger.Locale {
	locale := banger.Locale{Lang: cmp.Or(getenv("LC_ALL"), getenv("LC_CTYPE"), getenv("LANG"))}
	zone := strings.TrimPrefix(getenv("TZ"), ":")
	if !zoneName.MatchString(zone) {
		link, _ := os.Readlink(filepath.Join(root, "etc/localtime"))
		_, zone, _ = strings.Cut(link, "zoneinfo/")
	}
	if !zoneName.MatchString(zone) {
		return locale
	}
	data, err := os.ReadFile(filepath.Join(root, zoneInfo, zone))
	if err == nil && bytes.HasPrefix(data, []byte("TZif")) && len(data) <= maxZoneData {
		locale.TimeZone, locale.ZoneData = zone, data
	}
	return locale
}
