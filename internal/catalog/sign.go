package catalog

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"banger"
	"banger/internal/atomicfile"
)

const (
	// maxSignatures bounds the lines of a signature file, maxSignatureFile its bytes.
	maxSignatures    = 32
	maxSignatureFile = 16 << 10
	maxKeyFile       = 16 << 10
	keyBlock         = "PRIVATE KEY" // PKCS #8 (RFC 5958)
)

// KeyID names a public key in signature files: the first 8 bytes of its SHA-256.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// FormatKey writes a public key as the configuration takes it.
func FormatKey(key ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(key) }

// signature is one line of a signature file.
type signature struct {
	keyID string
	bytes []byte
}

var keyIDPattern = banger.Pattern(`^[0-9a-f]{16}$`)

// parseSignatures reads a signature file: a line for each signature, "KEYID BASE64". Errors: ErrCorrupt.
func parseSignatures(text []byte) ([]signature, error) {
	bad := func(format string, args ...any) ([]signature, error) {
		return nil, &banger.Error{Kind: banger.ErrCorrupt, Op: "catalog signature", Err: fmt.Errorf(format, args...)}
	}
	if len(text) > maxSignatureFile {
		return bad("it has more than %d bytes", maxSignatureFile)
	}
	body, ok := strings.CutSuffix(string(text), "\n")
	if !ok {
		return bad("it has no end")
	}
	lines := strings.Split(body, "\n")
	if len(lines) > maxSignatures {
		return bad("it has %d lines", len(lines))
	}
	var signatures []signature
	for i, line := range lines {
		id, encoded, _ := strings.Cut(line, " ")
		bytes, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if !keyIDPattern().MatchString(id) || err != nil || len(bytes) != ed25519.SignatureSize || strings.ContainsAny(encoded, "\r\n") {
			return bad("line %d is no signature", i+1)
		}
		signatures = append(signatures, signature{id, bytes})
	}
	return signatures, nil
}

func formatSignatures(signatures []signature) []byte {
	var b strings.Builder
	for _, s := range signatures {
		fmt.Fprintf(&b, "%s %s\n", s.keyID, base64.StdEncoding.EncodeToString(s.bytes))
	}
	return []byte(b.String())
}

func sign(index []byte, keys []ed25519.PrivateKey) []signature {
	var signatures []signature
	for _, key := range keys {
		signatures = append(signatures, signature{KeyID(key.Public().(ed25519.PublicKey)), ed25519.Sign(key, index)})
	}
	return signatures
}

var errOtherContent = errors.New("its signature is of other content: it was changed after it was signed")

// verify wants one of signatures to be of one of keys. Errors: ErrRefused when none is by a key that is known; ErrCorrupt when one is,
// but of other content.
func verify(index []byte, signatures []signature, keys []ed25519.PublicKey) error {
	var unknown []string
	known := false
	for _, s := range signatures {
		for _, key := range keys {
			if KeyID(key) != s.keyID {
				continue
			}
			known = true
			if ed25519.Verify(key, index, s.bytes) {
				return nil
			}
		}
		unknown = append(unknown, s.keyID)
	}
	if known {
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "catalog index", Err: errOtherContent,
			Hint: "do not use it; tell who publishes it"}
	}
	return &banger.Error{Kind: banger.ErrRefused, Op: "catalog index", Err: fmt.Errorf("it is signed by a key that is not known here: %s", strings.Join(unknown, ", ")),
		Hint: "if its publisher is to be trusted, add the public key to catalog.keys in the configuration"}
}

// GenerateKey makes a key pair and stores the private key at path, which is not there yet, as PEM with mode 0600.
// Errors: ErrConflict.
func GenerateKey(path string) (ed25519.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, &banger.Error{Kind: banger.ErrConflict, Op: "make key", Subject: path, Err: os.ErrExist, Hint: "a key that is lost can't be had again: choose another file, or move that one"}
	}
	if err != nil {
		return nil, err
	}
	err = pem.Encode(f, &pem.Block{Type: keyBlock, Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return public, atomicfile.SyncDir(filepath.Dir(path))
}

// ReadKey reads a private key. Errors: ErrNotFound; ErrRefused when others can read the file; ErrInvalid for what is no ed25519 key.
func ReadKey(path string) (ed25519.PrivateKey, error) {
	fail := func(kind, err error, hint string) (ed25519.PrivateKey, error) {
		return nil, &banger.Error{Kind: kind, Op: "signing key", Subject: path, Err: err, Hint: hint}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for its writer
	if errors.Is(err, os.ErrNotExist) {
		return fail(banger.ErrNotFound, os.ErrNotExist, "make one: banger catalog keygen "+path)
	}
	if err != nil {
		return fail(nil, err, "")
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return fail(nil, err, "")
	case !info.Mode().IsRegular():
		return fail(banger.ErrInvalid, errors.New("it is no regular file"), "")
	case info.Mode().Perm()&0o077 != 0:
		return fail(banger.ErrRefused, fmt.Errorf("others can use it: its mode is %04o", info.Mode().Perm()), "chmod 600 "+path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return fail(nil, err, "")
	}
	const want = "want an ed25519 private key (PEM, PKCS #8)"
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return fail(banger.ErrInvalid, errors.New(want), "")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return fail(banger.ErrInvalid, errors.New(want), "")
	}
	return key, nil
}
