package smoke

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/testenv"
)

// The console on a terminal: what is typed reaches the guest raw, Ctrl-C too, and Ctrl-] leaves.
func TestAttachConsole(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "box", "--", "sh", "-c",
		"setsid sh -c 'stty raw -echo; exec sh -c \"echo listening; dd bs=1 count=6 2>/dev/null | od -An -c; echo heard\"' </dev/ttyS0 >/dev/ttyS0 2>&1 &")
	wantStatus(t, w.Run("vm", "attach", "nobody"), 3, "nobody")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, "vm", "attach", "box")
	tty, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 30, Cols: 100}, withTerminal(cmd.SysProcAttr))
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	x := watchTerminal(t, tty)
	x.expect("detach with Ctrl-]")
	x.expect("listening")
	x.send("ab\x03\x1a\x04\r")
	if shown := x.until("heard"); !strings.Contains(strings.Join(strings.Fields(shown), " "), `a b 003 032 004 \r`) {
		t.Errorf("the guest heard %q, want every key as it was typed", shown)
	}
	x.send("\x1d")
	x.expect("detached; vm box goes on")
	for range x.screen {
	}
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 0 {
		t.Errorf("exit status %d, want 0", got)
	}
	if got := showVM(w, "box").State; got != "running" {
		t.Errorf("after detaching the machine is %s", got)
	}
}

// A guest takes over name, time zone, proxy and certificates of the host, the last two only when told to.
func TestGuestSettings(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(w.User.Dir(t), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	w.Env = append(w.Env, "TZ=Asia/Kolkata", "https_proxy=http://proxy.example:3128")
	script := `hostname; getent hosts $(hostname) | head -1; date +%z; echo "[$https_proxy]"; grep -c "BEGIN CERT" /usr/local/share/ca-certificates/banger.crt 2>/dev/null
openssl verify /usr/local/share/ca-certificates/banger.crt 2>/dev/null || true; date +%s`
	out := strings.Split(w.Must("vm", "run", "--name", "box", "--host-proxy", "--ca", ca, "--", "sh", "-c", script), "\n")
	if len(out) < 6 || out[0] != "box" || !strings.Contains(out[1], "127.0.1.1") || out[2] != "+0530" || out[3] != "[http://proxy.example:3128]" || out[4] != "1" {
		t.Errorf("the guest says %q", out)
	}
	w.Must("vm", "delete", "--force", "box")
	out = strings.Split(w.Must("vm", "run", "--rm", "--name", "plain", "--env", "TZ=UTC", "--", "sh", "-c", script), "\n")
	if len(out) < 4 || out[0] != "plain" || out[2] != "+0000" || out[3] != "[]" {
		t.Errorf("a guest that was told nothing says %q", out)
	}
	wantStatus(t, w.Run("vm", "create", "--ca", "/etc/passwd"), 2, "--ca /etc/passwd", "PEM")
}
