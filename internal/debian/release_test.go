package debian

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/testenv"
)

const realRelease = "testdata/InRelease-bookworm-security"

// TestRealRelease reads what Debian has signed, with the keys that banger ships.
func TestRealRelease(t *testing.T) {
	text, err := os.ReadFile(realRelease)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := DebianKeys()
	if err != nil {
		t.Fatal(err)
	}
	made := time.Date(2026, 11, 21, 0, 53, 2, 0, time.UTC)
	now := made.Add(time.Hour)
	r, err := openRelease(text, keys, now)
	if err != nil {
		t.Fatal(err)
	}
	if r.codename != "bookworm-security" || r.suite != "oldstable-security" || !r.byHash || !r.date.Equal(made) || !r.validUntil.Equal(made.AddDate(0, 0, 7)) {
		t.Errorf("openRelease = %+v", r)
	}
	if f := r.files["main/binary-amd64/Packages.xz"]; f.size < 100_000 || len(f.sha256) != 64 {
		t.Errorf("its list of packages is %+v", f)
	}
	for _, at := range []time.Time{made.AddDate(0, 0, 8), made.AddDate(10, 0, 0), made.AddDate(-1, 0, 0)} {
		if _, err := openRelease(text, keys, at); !errors.Is(err, banger.ErrRefused) || !strings.Contains(banger.HintOf(err), "clock") {
			t.Errorf("at %s: openRelease = %v (hint %q), want refused and the clock", at, err, banger.HintOf(err))
		}
	}
	for i := range 40 { // a byte anywhere in what is signed
		at := bytes.Index(text, []byte("Origin:")) + i*len(text)*9/10/40
		changed := slices.Clone(text)
		changed[at] ^= 1
		if bytes.ContainsAny(changed[at:at+1], " \t\n\r") || bytes.ContainsAny(text[at:at+1], " \t\n\r") {
			continue // white space at the end of a line is not signed
		}
		if _, err := openRelease(changed, keys, now); !errors.Is(err, banger.ErrRefused) && !errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("byte %d changed: openRelease = %v", at, err)
		}
	}
}

// TestInstalledReleases reads the lists that apt has fetched on this computer.
func TestInstalledReleases(t *testing.T) {
	paths, err := filepath.Glob("/var/lib/apt/lists/*debian*_InRelease")
	if err != nil || len(paths) == 0 {
		testenv.Skip(t, "apt's package lists")
	}
	keys, err := DebianKeys()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := verify(text, keys, time.Now())
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if r, err := parseRelease(signed); err != nil || len(r.files) < 10 {
			t.Errorf("%s: %d files, %v", path, len(r.files), err)
		}
	}
}

// TestShippedKeys compares the keys with the table that tells of them.
func TestShippedKeys(t *testing.T) {
	keys, err := DebianKeys()
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("keys/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Count(string(table), ".gpg` |"); len(keys) != want {
		t.Errorf("%d keys are shipped, the table has %d", len(keys), want)
	}
	for _, key := range keys {
		fingerprint := strings.ToUpper(fmt.Sprintf("%x", key.PrimaryKey.Fingerprint))
		if !strings.Contains(strings.ReplaceAll(string(table), " ", ""), fingerprint) {
			t.Errorf("%s is not in the table", fingerprint)
		}
	}
}

const releaseText = "Suite: stable\nCodename: test\nDate: Sat, 21 Nov 2026 00:53:02 UTC\nSHA256:\n " +
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages\n"

func TestOpenRelease(t *testing.T) {
	ours, theirs := testenv.NewSigningKey(t), testenv.NewSigningKey(t)
	sign := func(text string, keys ...*openpgp.Entity) []byte { return testenv.Clearsign(t, text, keys...) }
	good := sign(releaseText, ours)
	for _, tc := range []struct {
		what string
		text []byte
		want error
		says string // error and hint
	}{
		{"good", good, nil, ""},
		{"signed by both", sign(releaseText, theirs, ours), nil, ""},
		{"text around it", slices.Concat([]byte("Codename: evil\n"), good, []byte("Codename: evil\n")), nil, ""},
		{"signed by another", sign(releaseText, theirs), banger.ErrRefused, "no trusted keys"},
		{"another's signature", slices.Concat(good[:bytes.Index(good, []byte("-----BEGIN PGP SIGNATURE"))],
			bytes.TrimPrefix(sign("x", ours), sign("x", ours)[:bytes.Index(sign("x", ours), []byte("-----BEGIN PGP SIGNATURE"))])), banger.ErrRefused, "wrong"},
		{"changed", bytes.Replace(good, []byte("Codename: test"), []byte("Codename: evil"), 1), banger.ErrRefused, "wrong"},
		{"not signed", []byte(releaseText), banger.ErrCorrupt, "no signed text"},
		{"empty", nil, banger.ErrCorrupt, "no signed text"},
		{"cut", good[:len(good)-100], banger.ErrCorrupt, ""},
		{"expired", sign(releaseText+"Valid-Until: Sun, 22 Nov 2026 00:00:00 UTC\n", ours), banger.ErrRefused, "2026-11-22"},
		{"no date", sign(strings.Replace(releaseText, "Date", "Dat", 1), ours), banger.ErrCorrupt, "Date"},
		{"odd time zone", sign(strings.Replace(releaseText, "UTC", "CEST", 1), ours), banger.ErrCorrupt, "CEST"},
		{"odd Valid-Until", sign(releaseText+"Valid-Until: never\n", ours), banger.ErrCorrupt, "Valid-Until"},
		{"odd digest", sign(strings.Replace(releaseText, "e3b0", "e3bx", 1), ours), banger.ErrCorrupt, "sha256"},
		{"odd size", sign(strings.Replace(releaseText, " 0 main", " -1 main", 1), ours), banger.ErrCorrupt, "size"},
		{"odd line", sign(releaseText+" x\n", ours), banger.ErrCorrupt, "SHA256"},
		{"a file twice", sign(releaseText+" "+strings.Repeat("00", 32)+" 0 main/binary-amd64/Packages\n", ours), banger.ErrCorrupt, "twice"},
		{"two paragraphs", sign(releaseText+"\nCodename: evil\n", ours), banger.ErrCorrupt, "2 paragraphs"},
	} {
		r, err := openRelease(tc.text, Keys{ours}, time.Now())
		if !errors.Is(err, tc.want) || err != nil && !strings.Contains(err.Error()+banger.HintOf(err), tc.says) {
			t.Errorf("%s: openRelease = %+v, %v (hint %q), want %v with %q", tc.what, r, err, banger.HintOf(err), tc.want, tc.says)
		}
		if err == nil && r.codename != "test" {
			t.Errorf("%s: openRelease = %+v", tc.what, r)
		}
	}
}

// TestGnuPG takes keys and signatures of gpg.
func TestGnuPG(t *testing.T) {
	tool := testenv.RequireTool(t, "gpg")
	home, err := os.MkdirTemp("/tmp", "bgpg") // its agent's socket wants a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	gpg := func(input string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(tool, append([]string{"--homedir", home, "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"}, args...)...)
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %s: %v", args, err)
		}
		return out
	}
	for _, algorithm := range []string{"ed25519", "rsa4096"} {
		name := algorithm + "@example.org"
		gpg("", "--quick-generate-key", name, algorithm, "sign", "1y")
		signed := gpg(releaseText, "--clearsign", "--local-user", name)
		for _, armor := range []string{"--armor", "--no-armor"} {
			path := filepath.Join(home, "exported")
			if err := os.WriteFile(path, gpg("", armor, "--export", name), 0o600); err != nil {
				t.Fatal(err)
			}
			keys, err := ReadKeys(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := openRelease(signed, keys, time.Now()); err != nil {
				t.Errorf("%s %s: %v", algorithm, armor, err)
			}
			if _, err := openRelease(signed, keys, time.Now().AddDate(2, 0, 0)); !errors.Is(err, banger.ErrRefused) {
				t.Errorf("%s %s with an expired key: %v", algorithm, armor, err)
			}
		}
	}
}

func TestReadKeysErrors(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "text": "no key", "armor": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxxxx\n", "large": strings.Repeat("x", maxKeyring+1)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if keys, err := ReadKeys(path); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), path) {
			t.Errorf("ReadKeys(%s) = %v, %v, want invalid and the path", name, keys, err)
		}
	}
	if _, err := ReadKeys(dir); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("ReadKeys of a directory: %v", err)
	}
	if _, err := ReadKeys(filepath.Join(dir, "none")); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("ReadKeys of nothing: %v", err)
	}
}

// FuzzOpenRelease wants of what passes for signed that it is what was signed.
func FuzzOpenRelease(f *testing.F) {
	key := testenv.NewSigningKey(f)
	good := testenv.Clearsign(f, releaseText, key)
	want, err := verify(good, Keys{key}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, 0, []byte{})
	f.Add(100, 1, []byte("evil"))
	f.Add(len(good)-1, 0, good)
	f.Fuzz(func(t *testing.T, at, removed int, added []byte) {
		at = min(max(at, 0), len(good))
		removed = min(max(removed, 0), len(good)-at)
		text := slices.Concat(good[:at], added, good[at+removed:])
		if signed, err := verify(text, Keys{key}, time.Now()); err == nil && !bytes.Equal(signed, want) {
			t.Fatalf("verify(%q) = %q, which nobody signed", text, signed)
		}
	})
}

// FuzzParseRelease wants that what is read, written again, reads the same.
func FuzzParseRelease(f *testing.F) {
	f.Add(releaseText + "Valid-Until: Sun, 22 Nov 2026 00:00:00 +0000\nAcquire-By-Hash: yes\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRelease([]byte(text))
		if err != nil {
			return
		}
		again, err := parseRelease([]byte(r.format()))
		if err != nil || !cmp.Equal(again, r, cmp.AllowUnexported(release{}, blob{})) {
			t.Fatalf("parseRelease again = %+v, %v, want %+v", again, err, r)
		}
	})
}

func (r release) format() string {
	text := "Suite: " + strings.ReplaceAll(r.suite, "\n", "\n ") + "\nCodename: " + strings.ReplaceAll(r.codename, "\n", "\n ") + "\nDate: " + r.date.Format(time.RFC1123) + "\n"
	if !r.validUntil.IsZero() {
		text += "Valid-Until: " + r.validUntil.Format(time.RFC1123) + "\n"
	}
	if r.byHash {
		text += "Acquire-By-Hash: yes\n"
	}
	text += "SHA256:\n"
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		text += fmt.Sprintf(" %s %d %s\n", r.files[name].sha256, r.files[name].size, name)
	}
	return text
}
