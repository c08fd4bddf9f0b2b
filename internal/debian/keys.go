package debian

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/ProtonMail/go-crypto/openpgp"

	"banger"
)

// Keys are the public keys of which one must have signed an archive.
type Keys = openpgp.EntityList

//go:embed keys/*.gpg
var shipped embed.FS

// DebianKeys are the keys of Debian's archive; keys/README.md tells where they are from.
var DebianKeys = sync.OnceValues(func() (Keys, error) {
	files, err := shipped.ReadDir("keys")
	if err != nil {
		return nil, err
	}
	var keys Keys
	for _, file := range files {
		text, err := shipped.ReadFile("keys/" + file.Name())
		if err != nil {
			return nil, err
		}
		more, err := parseKeys(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		keys = append(keys, more...)
	}
	return keys, nil
})

// maxKeyring bounds a file of keys. All of Debian's of twenty years have 130 kB.
const maxKeyring = 4 << 20

// ReadKeys reads a file of public keys, as gpg exports them: binary, or armored. Errors: ErrInvalid; ErrNotFound.
func ReadKeys(path string) (Keys, error) {
	fail := func(kind, err error) (Keys, error) {
		return nil, &banger.Error{Kind: kind, Op: "read public keys", Subject: path, Err: err, Hint: "gpg --export makes such a file"}
	}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return fail(banger.ErrNotFound, os.ErrNotExist)
	}
	if err != nil {
		return fail(banger.ErrInvalid, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxKeyring+1))
	if err == nil && len(text) > maxKeyring {
		err = fmt.Errorf("it has more than %s", banger.FormatSize(maxKeyring))
	}
	if err != nil {
		return fail(banger.ErrInvalid, err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return fail(banger.ErrInvalid, err)
	}
	return keys, nil
}

func parseKeys(text []byte) (keys Keys, err error) {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN ")) {
		keys, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(text))
	} else {
		keys, err = openpgp.ReadKeyRing(bytes.NewReader(text))
	}
	if err == nil && len(keys) == 0 {
		err = errors.New("there is no key in it")
	}
	return keys, err
}
