package supervisor

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/guest"
	"banger/internal/statedir"
)

// keys are how host and guest know each other.
type keys struct {
	user        ssh.Signer
	userPublic  string // a line of authorized_keys
	host        ssh.PublicKey
	hostPrivate string // OpenSSH PEM
}

func readKeys(dir statedir.VMDir) (keys, error) {
	user, _, err := readKey(dir.UserKey())
	if err != nil {
		return keys{}, err
	}
	host, private, err := readKey(dir.HostKey())
	if err != nil {
		return keys{}, err
	}
	return keys{user: user, userPublic: string(ssh.MarshalAuthorizedKey(user.PublicKey())), host: host.PublicKey(), hostPrivate: string(private)}, nil
}

func readKey(path string) (ssh.Signer, []byte, error) {
	private, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: key %s: %w", banger.ErrCorrupt, path, err)
	}
	return signer, private, nil
}

// link is the one connection to the guest's SSH server that all commands share. It is made when it is needed, and again
// when it was lost.
type link struct {
	sock string
	cfg  guest.Config
	turn chan struct{} // holds one token: whose it is may sign in

	mu     sync.Mutex
	client *guest.Client
	closed bool
}

func newLink(sock string, k keys) *link {
	l := &link{sock: sock, cfg: guest.Config{UserKey: k.user, HostKey: k.host}, turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	return l
}

// emulated says how the guest runs, before the first get.
func (l *link) emulated(tcg bool) { l.cfg.PreferChaCha = tcg }

// get gives the connection; ctx bounds the waiting for it.
func (l *link) get(ctx context.Context) (*guest.Client, error) {
	select {
	case <-l.turn:
	case <-ctx.Done():
		return nil, &banger.Error{Kind: banger.ErrInterrupted, Op: "sign in to guest", Err: context.Cause(ctx)}
	}
	defer func() { l.turn <- struct{}{} }()
	if client := l.current(); client != nil {
		return client, nil
	}
	client, err := guest.Dial(ctx, l.sock, l.cfg)
	if err != nil {
		return nil, err
	}
	return client, l.keep(client)
}

func (l *link) current() *guest.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		return nil
	}
	select {
	case <-l.client.Done():
		return nil
	default:
		return l.client
	}
}

func (l *link) keep(client *guest.Client) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		client.Close()
		return &banger.Error{Kind: banger.ErrUnavailable, Op: "sign in to guest", Err: errEnded}
	}
	l.client = client
	return nil
}

// close ends the connection and all that runs on it.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.client != nil {
		l.client.Close()
	}
}
