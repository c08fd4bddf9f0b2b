package debian

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"banger"
)

// maxSignatures bounds the work on a file that nobody has signed yet. Debian has up to four.
const maxSignatures = 32

// release is what an archive says of one suite, signed.
type release struct {
	suite, codename string
	byHash          bool            // files are there under the name of their digest too
	date            time.Time       // when it was made
	validUntil      time.Time       // zero: for ever
	files           map[string]blob // by path below the suite
}

// blob is a file as a signed one describes it.
type blob struct {
	size   int64
	sha256 string // hexadecimal, lower case
}

// openRelease reads an InRelease file: one of keys must have signed it, and neither may have expired at now.
// Errors: ErrRefused; ErrCorrupt.
func openRelease(text []byte, keys Keys, now time.Time) (release, error) {
	signed, err := verify(text, keys, now)
	if err != nil {
		return release{}, err
	}
	r, err := parseRelease(signed)
	if err != nil {
		return release{}, err
	}
	if !r.validUntil.IsZero() && now.After(r.validUntil) {
		return release{}, &banger.Error{Kind: banger.ErrRefused, Hint: clockHint,
			Err: fmt.Errorf("it was valid until %s", r.validUntil.Format(time.DateTime))}
	}
	return r, nil
}

const (
	clockHint = "look at this computer's clock; if it is right, the mirror is out of date: take another"
	keysHint  = "Debian's keys are known; debian.keyring in the configuration names a file with those of another archive"
)

// verify gives the signed part of a clearsigned text. One good signature is enough: an archive signs with old and new keys.
func verify(text []byte, keys Keys, now time.Time) (signed []byte, err error) {
	block, _ := clearsign.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: it is no signed text", banger.ErrCorrupt)
	}
	var others []string // who signed and is unknown
	reason := error(nil)
	signatures := packet.NewOpaqueReader(block.ArmoredSignature.Body)
	for range maxSignatures {
		next, err := signatures.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: its signature: %w", banger.ErrCorrupt, err)
		}
		var one bytes.Buffer
		if err := next.Serialize(&one); err != nil {
			return nil, err
		}
		config := &packet.Config{Time: func() time.Time { return now }}
		_, err = openpgp.CheckDetachedSignature(keys, bytes.NewReader(block.Bytes), &one, config)
		switch {
		case err == nil:
			return block.Bytes, nil
		case errors.Is(err, pgperrors.ErrUnknownIssuer):
			others = append(others, issuer(next))
		default:
			reason = err
		}
	}
	switch {
	case errors.Is(reason, pgperrors.ErrKeyExpired), errors.Is(reason, pgperrors.ErrSignatureExpired):
		return nil, &banger.Error{Kind: banger.ErrRefused, Err: fmt.Errorf("its signature is not valid at %s: %w", now.UTC().Format(time.DateTime), reason), Hint: clockHint}
	case reason != nil:
		return nil, &banger.Error{Kind: banger.ErrRefused, Err: fmt.Errorf("its signature is wrong: %w", reason), Hint: "somebody has changed it on its way, or the mirror is damaged: take another"}
	case len(others) > 0:
		return nil, &banger.Error{Kind: banger.ErrRefused, Err: fmt.Errorf("it is signed by %s, which are no trusted keys", strings.Join(others, ", ")), Hint: keysHint}
	}
	return nil, &banger.Error{Kind: banger.ErrRefused, Err: errors.New("it has no signature"), Hint: keysHint}
}

// issuer names who claims to have signed.
func issuer(p *packet.OpaquePacket) string {
	parsed, err := p.Parse()
	if s, ok := parsed.(*packet.Signature); err == nil && ok && s.IssuerKeyId != nil {
		return fmt.Sprintf("%016X", *s.IssuerKeyId)
	}
	return "somebody"
}

// parseRelease reads the fields of a Release file. Errors: ErrCorrupt.
func parseRelease(text []byte) (release, error) {
	corrupt := func(format string, args ...any) (release, error) {
		return release{}, fmt.Errorf("%w: %s", banger.ErrCorrupt, fmt.Sprintf(format, args...))
	}
	paragraphs, err := ParseControl(bytes.NewReader(text))
	if err != nil {
		return release{}, err
	}
	if len(paragraphs) != 1 {
		return corrupt("it has %d paragraphs, want 1", len(paragraphs))
	}
	fields := paragraphs[0]
	r := release{suite: fields.Get("Suite"), codename: fields.Get("Codename"), byHash: fields.Get("Acquire-By-Hash") == "yes", files: map[string]blob{}}
	if r.date, err = parseDate(fields.Get("Date")); err != nil {
		return corrupt("Date: %v", err)
	}
	if until := fields.Get("Valid-Until"); until != "" {
		if r.validUntil, err = parseDate(until); err != nil {
			return corrupt("Valid-Until: %v", err)
		}
	}
	for line := range strings.Lines(fields.Get("SHA256")) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return corrupt("SHA256 has the line %.100q", line)
		}
		file, err := parseBlob(words[1], words[0])
		if err != nil {
			return corrupt("%.100s: %v", words[2], err)
		}
		if known, twice := r.files[words[2]]; twice && known != file {
			return corrupt("%.100s is in it twice", words[2])
		}
		r.files[words[2]] = file
	}
	return r, nil
}

// parseDate reads the form of RFC 2822, as archives write it.
func parseDate(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC1123, text)
	if err != nil {
		at, err = time.Parse(time.RFC1123Z, text)
	}
	if err == nil && at.Location() != time.UTC { // the name of a zone that Go does not know would be taken for UTC
		if name, offset := at.Zone(); offset == 0 && name != "" && name != "GMT" && name != "UTC" {
			err = fmt.Errorf("time zone %.10q", name)
		}
	}
	return at.UTC(), err
}

func parseBlob(size, sum string) (blob, error) {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 {
		return blob{}, fmt.Errorf("size %.30q", size)
	}
	raw, err := hex.DecodeString(sum)
	if err != nil || len(raw) != 32 {
		return blob{}, fmt.Errorf("sha256 %.80q", sum)
	}
	return blob{n, hex.EncodeToString(raw)}, nil
}
