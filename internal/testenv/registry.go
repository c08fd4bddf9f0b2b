package testenv

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Registry is Debian's registry server on loopback.
type Registry struct {
	Host string
	// Dir is readable by everyone. With a password it has config.json, docker's configuration, with TLS ca.crt, the server's certificate.
	Dir string
}

// RegistryCredentials are those of a registry with a password.
const RegistryCredentials = "user:secret"

// StartRegistry serves an empty registry until the test ends.
func StartRegistry(t testing.TB, password, secure bool) Registry {
	t.Helper()
	server := RequireTool(t, "docker-registry")
	dir, err := os.MkdirTemp("/tmp", "btreg")
	r := Registry{Host: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), Dir: dir}
	t.Cleanup(func() { os.RemoveAll(r.Dir) })
	if err := errors.Join(err, os.Chmod(r.Dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	http, auth := "", ""
	if secure {
		r.certify(t)
		http = fmt.Sprintf(", tls: {certificate: %s/ca.crt, key: %s/key.pem}", r.Dir, r.Dir)
	}
	if password {
		r.protect(t)
		auth = fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s/htpasswd}}\n", r.Dir)
	}
	r.write(t, "registry.yml", fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: '%s'%s}\n%s",
		r.Dir, r.Host, http, auth))
	cmd := exec.Command(server, "serve", filepath.Join(r.Dir, "registry.yml"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	WaitFor(t, time.Minute, "the registry", func() bool {
		conn, err := net.Dial("tcp", r.Host)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return r
}

func (r Registry) write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// certify makes a certificate that signs itself.
func (r Registry) certify(t testing.TB) {
	t.Helper()
	Run(t, RequireTool(t, "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
		"-days", "2", "-keyout", filepath.Join(r.Dir, "key.pem"), "-out", filepath.Join(r.Dir, "ca.crt"))
}

// protect sets the password.
func (r Registry) protect(t testing.TB) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, "htpasswd", "user:"+string(hash)+"\n")
	r.write(t, "config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.Host, base64.StdEncoding.EncodeToString([]byte(RegistryCredentials))))
}
