package machine

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"banger"
)

// SetNet changes what the VM's network reaches; the policy holds when SetNet returns.
func (c Client) SetNet(ctx context.Context, policy banger.NetPolicy) error {
	_, err := c.answer(ctx, Request{SetNet: &SetNetRequest{Policy: policy}})
	return err
}

// NetLog hands over what is left of the network's log, and with follow what comes after it until the run ends. Of a VM that
// does not run it is that of its last runs. What each returns ends it.
func (c Client) NetLog(ctx context.Context, follow bool, each func(banger.NetEvent) error) error {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		req := ConsoleRequest{Follow: follow}
		_, err := c.readFrom(ctx, Request{NetLog: &req}, req, c.dir().NetworkLog(), w)
		w.CloseWithError(err)
		done <- err
	}()
	err := readEvents(r, each)
	r.CloseWithError(err)
	if copyErr := <-done; err == nil {
		err = copyErr
	}
	return err
}

// readEvents reads lines. What is no event is skipped: the oldest line of a ring is cut off.
func readEvents(r io.Reader, each func(banger.NetEvent) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var event banger.NetEvent
		if json.Unmarshal(lines.Bytes(), &event) != nil || event.Verdict == "" {
			continue
		}
		if err := each(event); err != nil {
			return err
		}
	}
	return lines.Err()
}

// PeerSocket is where the VM of this name takes connections of other VMs to its ports: a [ConnectRequest], answered by a
// [Response], then raw bytes. Names are too long for the path of a socket.
func PeerSocket(dir, name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(dir, hex.EncodeToString(sum[:10]))
}

// CleanPeers removes the sockets of all VMs but those that run: a supervisor that is killed leaves its own.
func CleanPeers(dir string, running []string) error {
	keep := map[string]bool{}
	for _, name := range running {
		keep[PeerSocket(dir, name)] = true
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if path := filepath.Join(dir, entry.Name()); entry.Type() == fs.ModeSocket && !keep[path] {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// DialPeer connects to a port of another VM's guest. The connection has CloseWrite. Errors: ErrUnavailable when the VM does
// not run.
func DialPeer(ctx context.Context, dir, name string, port uint16) (net.Conn, error) {
	conn, err := Client{Socket: PeerSocket(dir, name)}.ask(ctx, Request{Connect: &ConnectRequest{Port: uint32(port)}})
	if err != nil {
		return nil, fmt.Errorf("vm %s: %w", name, err)
	}
	return conn, nil
}
