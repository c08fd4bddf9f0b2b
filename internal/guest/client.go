package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/channel"
)

const clientVersion = "SSH-2.0-banger"

// Config says how to sign in.
type Config struct {
	UserKey      ssh.Signer
	HostKey      ssh.PublicKey // pinned: the guest must prove that it has this one
	PreferChaCha bool          // for emulated guests: twice as fast there; otherwise AES is
}

// HostKeyError says that another key than the pinned one answers: it is not the guest that was created. Its kind is ErrRefused.
type HostKeyError struct{ Want, Got string } // SHA256 fingerprints

func (e *HostKeyError) Error() string {
	return fmt.Sprintf("the guest proves host key %s, not the pinned %s", e.Got, e.Want)
}

func (e *HostKeyError) Is(target error) bool { return target == banger.ErrRefused }

// Client is one standing connection to a guest. It is safe for concurrent use.
type Client struct {
	conn ssh.Conn
	done chan struct{}
}

// Dial signs in to the guest behind guestSock. ctx bounds the sign-in only.
// Errors: [HostKeyError]; ErrUnavailable.
func Dial(ctx context.Context, guestSock string, cfg Config) (*Client, error) {
	conn, err := channel.Dial(ctx, guestSock, channel.PortSSH)
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, conn, cfg)
}

// NewClient signs in over a connection to the guest's SSH server, which it owns.
func NewClient(ctx context.Context, conn net.Conn, cfg Config) (*Client, error) {
	ciphers := []string{ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305}
	if cfg.PreferChaCha {
		ciphers[0], ciphers[1] = ciphers[1], ciphers[0]
	}
	sshConfig := &ssh.ClientConfig{
		Config: ssh.Config{
			// Not the one that withstands quantum computers: the channel never leaves this computer, and an emulated guest signs in 25 ms sooner.
			KeyExchanges:   []string{ssh.KeyExchangeCurve25519},
			RekeyThreshold: channel.NeverRekey,
			Ciphers:        ciphers,
		},
		User:              "root",
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(cfg.UserKey)},
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		HostKeyCallback:   pin(cfg.HostKey),
		ClientVersion:     clientVersion,
	}
	buffered := channel.Buffer(conn)
	stop := context.AfterFunc(ctx, func() { buffered.SetReadDeadline(time.Unix(1, 0)) })
	client, chans, reqs, err := ssh.NewClientConn(buffered, "guest", sshConfig)
	if !stop() {
		err = errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		buffered.Close()
		return nil, signInError(err)
	}
	c := &Client{conn: client, done: make(chan struct{})}
	go ssh.DiscardRequests(reqs)
	go func() {
		for newChan := range chans {
			go newChan.Reject(ssh.Prohibited, "the host opens channels")
		}
		close(c.done)
	}()
	return c, nil
}

func pin(want ssh.PublicKey) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, got ssh.PublicKey) error {
		if !bytes.Equal(got.Marshal(), want.Marshal()) {
			return &HostKeyError{Want: ssh.FingerprintSHA256(want), Got: ssh.FingerprintSHA256(got)}
		}
		return nil
	}
}

func signInError(err error) error {
	kind := banger.ErrUnavailable
	if errors.Is(err, banger.ErrRefused) {
		kind = banger.ErrRefused
	}
	return &banger.Error{Kind: kind, Op: "sign in to guest", Err: err}
}

// Done is closed when the connection is lost or closed.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection; the guest ends the commands that run on it.
func (c *Client) Close() error { return c.conn.Close() }
