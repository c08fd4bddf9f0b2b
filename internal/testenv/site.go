package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// EnvSite names the directory of what the web servers of the internet of tests have beside their own page: the files of apt.example.test
// and npm.example.test lie in apt and npm, the repositories of git.example.test in git. The internet puts ca.pem there, the authority
// that its servers prove themselves by.
const EnvSite = "BANGER_TEST_SITE"

// webServer is what the servers for HTTP answer.
func webServer() http.Handler {
	site := os.Getenv(EnvSite)
	hosts := map[string]http.Handler{}
	if site != "" {
		hosts["apt.example.test"] = http.FileServer(http.Dir(filepath.Join(site, "apt")))
		hosts["npm.example.test"] = http.FileServer(http.Dir(filepath.Join(site, "npm")))
		if git, err := exec.LookPath("git"); err == nil {
			hosts["git.example.test"] = &cgi.Handler{Path: git, Args: []string{"http-backend"}, Dir: site,
				Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(site, "git"), "GIT_HTTP_EXPORT_ALL=1", "HOME=" + site}}
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler, ok := hosts[r.Host]; ok {
			handler.ServeHTTP(w, r)
			return
		}
		local, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		fmt.Fprintf(w, "%s at %s", r.Host, local)
	})
}

// certificate is that of the servers, by an authority of its own.
func certificate() (tls.Certificate, error) {
	fail := func(err error) (tls.Certificate, error) { return tls.Certificate{}, err }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	from, until := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "The internet of tests"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	authority, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err == nil {
		ca, err = x509.ParseCertificate(authority)
	}
	if err != nil {
		return fail(err)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "example.test"}, NotBefore: from, NotAfter: until,
		DNSNames: []string{"*.example.test"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, own.Public(), key)
	if err != nil {
		return fail(err)
	}
	if site := os.Getenv(EnvSite); site != "" {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority})
		if err := os.WriteFile(filepath.Join(site, "ca.pem"), text, 0o644); err != nil {
			return fail(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: own}, nil
}

// Save writes the archive's files below dir, as a web server has them.
func (m *Mirror) Save(t testing.TB, dir string) {
	t.Helper()
	for _, path := range m.Paths("") {
		to := filepath.Join(dir, path)
		err := os.MkdirAll(filepath.Dir(to), 0o755)
		if err == nil {
			err = os.WriteFile(to, m.Get(path), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
