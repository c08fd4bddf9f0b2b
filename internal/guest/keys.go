package guest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Keys are the ed25519 keys of one VM: the user's, with which the host signs in, and the guest's own.
type Keys struct {
	UserPrivate []byte // OpenSSH PEM
	UserPublic  string // a line of authorized_keys
	HostPrivate []byte
	HostPublic  string
}

// GenerateKeys makes new keys; comment names the VM in the public lines.
func GenerateKeys(comment string) (Keys, error) {
	var k Keys
	var err error
	if k.UserPrivate, k.UserPublic, err = generateKey(comment); err != nil {
		return Keys{}, err
	}
	k.HostPrivate, k.HostPublic, err = generateKey(comment)
	return k, err
}

func generateKey(comment string) (private []byte, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("generate key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return nil, "", fmt.Errorf("encode private key: %w", err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, "", fmt.Errorf("encode public key: %w", err)
	}
	line := ssh.MarshalAuthorizedKey(key)
	public = string(line[:len(line)-1])
	if comment != "" {
		public += " " + comment
	}
	return pem.EncodeToMemory(block), public, nil
}
