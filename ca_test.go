package banger

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestValidateCA(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	good := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	for _, tc := range []struct {
		name, text string
		bad        bool
	}{
		{"none", "", false},
		{"one", good, false},
		{"two with space between", good + "\n \n" + good, false},
		{"no PEM", "nonsense", true},
		{"something after it", good + "nonsense", true},
		{"a private key", good + string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})), true},
		{"no certificate in it", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), true},
		{"too many", strings.Repeat(good, 2000), true},
	} {
		if err := ValidateCA(tc.text); (err != nil) != tc.bad || tc.bad && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: ValidateCA = %v", tc.name, err)
		}
	}
}
