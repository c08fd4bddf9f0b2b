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

// PeerSocket is where a VM takes connections of other VMs to its ports: a [ConnectRequest], answered by a [Response], then raw bytes.
func PeerSocket(dir string, id banger.VMID) string { return filepath.Join(dir, string(id)) }

// peerName is the link by which the VM of this name is found. Names are too long for the path of a socket.
func peerName(dir, name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(dir, hex.EncodeToString(sum[:10]))
}

// NamePeer lets other VMs find this one by its name; another that was found by it is no longer. Only who gives names may call it: what a
// VM's own supervisor believes may be out of date.
func NamePeer(dir, name string, id banger.VMID) error {
	path := peerName(dir, name)
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(string(id), next); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// Peer is the VM that is found by a name. Errors: ErrUnavailable when none that runs has it.
func Peer(dir, name string) (banger.VMID, error) {
	id, err := os.Readlink(peerName(dir, name))
	if err != nil {
		return "", &banger.Error{Kind: banger.ErrUnavailable, Op: "vm", Subject: name, Err: errors.New("it does not run")}
	}
	return banger.ParseVMID(id)
}

// ForgetPeer undoes NamePeer, unless the name leads to another VM by now.
func ForgetPeer(dir, name string, id banger.VMID) error {
	if holder, err := Peer(dir, name); err != nil || holder != id {
		return nil
	}
	return os.Remove(peerName(dir, name))
}

// NamePeers makes running, names by id, the VMs that are found, and removes what others left: a supervisor that is killed leaves its socket.
func NamePeers(dir string, running map[banger.VMID]string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if _, runs := running[banger.VMID(entry.Name())]; !runs {
			errs = append(errs, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	for id, name := range running {
		errs = append(errs, NamePeer(dir, name, id))
	}
	return errors.Join(errs...)
}

// DialPeer connects to a port of another VM's guest. The connection has CloseWrite. Errors: ErrUnavailable when the VM does
// not run.
func DialPeer(ctx context.Context, dir, name string, port uint16) (net.Conn, error) {
	id, err := Peer(dir, name)
	if err != nil {
		return nil, err
	}
	conn, err := Client{Socket: PeerSocket(dir, id)}.ask(ctx, Request{Connect: &ConnectRequest{Port: uint32(port)}})
	if err != nil {
		return nil, fmt.Errorf("vm %s: %w", name, err)
	}
	return conn, nil
}
