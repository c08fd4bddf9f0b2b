package banger

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
)

// maxCA bounds the certificates of one VM together.
const maxCA = 256 << 10

// ValidateCA checks that text is certificates in PEM and nothing else: a private key must not get into a guest by mistake. Errors: ErrInvalid.
func ValidateCA(text string) error {
	if len(text) > maxCA {
		return Invalidf("certificates: they take more than %s", FormatSize(maxCA))
	}
	rest := []byte(text)
	for len(bytes.TrimSpace(rest)) > 0 {
		block, next := pem.Decode(bytes.TrimSpace(rest))
		if block == nil {
			return Invalidf("certificates: want them in PEM (-----BEGIN CERTIFICATE-----)")
		}
		if block.Type != "CERTIFICATE" {
			return Invalidf("certificates: there is a %.60q among them", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return Invalidf("certificates: %w", err)
		}
		rest = next
	}
	return nil
}
