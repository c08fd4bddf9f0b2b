package guestagent

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"banger"
)

// setZone gives a guest its host's time zone when the image has none, or UTC: an image that has chosen keeps it.
func (s settings) setZone(locale banger.Locale) error {
	if locale.TimeZone == "" || !filepath.IsLocal(locale.TimeZone) || !bytes.HasPrefix(locale.ZoneData, []byte("TZif")) {
		return nil
	}
	now, err := os.ReadFile(s.localtime)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && !isUTC(now) {
		return err
	}
	next := s.localtime + ".banger"
	zone := filepath.Join(s.zoneinfo, locale.TimeZone)
	_ = os.Remove(next)
	if _, err = os.Stat(zone); err == nil {
		err = os.Symlink(zone, next)
	} else {
		err = os.WriteFile(next, locale.ZoneData, 0o644)
	}
	if err == nil {
		err = os.Rename(next, s.localtime)
	}
	if _, statErr := os.Stat(s.timezone); err == nil && statErr == nil {
		err = writeChanged(s.timezone, locale.TimeZone+"\n")
	}
	return err
}

// isUTC tells by the rule at the end of a file in the format of tzfile(5).
func isUTC(zone []byte) bool { return bytes.HasSuffix(zone, []byte("\nUTC0\n")) }

// language matches what LANG may be, apart from C and POSIX.
var language = regexp.MustCompile(`^([a-z]{2,3}_[A-Z]{2})\.([A-Za-z0-9-]{1,20})(@[a-z]{1,20})?$`)

// knowsLanguage tells whether the C library below root has the data of a locale: without them programs complain about it.
func knowsLanguage(root, lang string) bool {
	m := language.FindStringSubmatch(lang)
	if m == nil {
		return false
	}
	compiled := m[1] + "." + strings.ReplaceAll(strings.ToLower(m[2]), "-", "") + m[3] // as glibc names it
	for _, name := range []string{lang, compiled} {
		if _, err := os.Stat(filepath.Join(root, "usr/lib/locale", name, "LC_CTYPE")); err == nil {
			return true
		}
	}
	archive, err := os.ReadFile(filepath.Join(root, "usr/lib/locale/locale-archive"))
	return err == nil && bytes.Contains(archive, []byte("\x00"+compiled+"\x00"))
}
