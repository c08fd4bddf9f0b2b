package guestagent

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger"
)

// setZone gives a guest its host's time zone when the image has none, or UTC: an image that has chosen keeps it.
func (s settings) setZone(locale banger.Locale) error {
	if locale.TimeZone == "" || isUTC(locale.ZoneData) || !filepath.IsLocal(locale.TimeZone) || !bytes.HasPrefix(locale.ZoneData, []byte("TZif")) {
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

// knowsLanguage tells whether the C library below root has the data of a locale, a language with its country ("de_DE.UTF-8", "ca_ES.UTF-8@valencia"):
// without them programs complain about it.
func knowsLanguage(root, lang string) bool {
	name, rest, dotted := strings.Cut(lang, ".")
	if !dotted || !strings.Contains(name, "_") || strings.ContainsAny(lang, "/\x00") {
		return false
	}
	codeset, modifier, modified := strings.Cut(rest, "@")
	if modified {
		modifier = "@" + modifier
	}
	compiled := name + "." + strings.ReplaceAll(strings.ToLower(codeset), "-", "") + modifier // as glibc names it
	for _, name := range []string{lang, compiled} {
		if _, err := os.Stat(filepath.Join(root, "usr/lib/locale", name, "LC_CTYPE")); err == nil {
			return true
		}
	}
	archive, err := os.ReadFile(filepath.Join(root, "usr/lib/locale/locale-archive"))
	return err == nil && bytes.Contains(archive, []byte("\x00"+compiled+"\x00"))
}
