package guestagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

// Certificates are in every list once, whatever links there are; without them all is as it was.
func TestTrustCA(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		link  [2]string // name, target
		list  string
	}{
		{"Debian", map[string]string{"etc/ssl/certs/ca-certificates.crt": "public\n"}, [2]string{}, "etc/ssl/certs/ca-certificates.crt"},
		{"Fedora", map[string]string{"etc/pki/extracted/list.pem": "public\n", "etc/pki/tls/certs/x": ""}, [2]string{"etc/pki/tls/certs/ca-bundle.crt", "../../extracted/list.pem"}, "etc/pki/extracted/list.pem"},
		{"none", nil, [2]string{}, "etc/ssl/certs/ca-certificates.crt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := files(t, tc.files)
			if tc.link[0] != "" {
				if err := os.Symlink(tc.link[1], filepath.Join(root, tc.link[0])); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := trustCA(root, strings.TrimSuffix(certificate, "\n")); err != nil {
					t.Fatal(err)
				}
			}
			list, err := os.ReadFile(filepath.Join(root, tc.list))
			if err != nil || strings.Count(string(list), certificate) != 1 || strings.HasSuffix(string(list), "public\n") != (tc.files != nil) {
				t.Errorf("%s: %q, %v", tc.list, list, err)
			}
			if own, err := os.ReadFile(filepath.Join(root, caFile)); err != nil || string(own) != certificate {
				t.Errorf("%s: %q, %v", caFile, own, err)
			}
			if err := trustCA(root, ""); err != nil {
				t.Fatal(err)
			}
			if list, _ := os.ReadFile(filepath.Join(root, tc.list)); string(list) != tc.files[tc.list] {
				t.Errorf("afterwards %s is %q, want %q", tc.list, list, tc.files[tc.list])
			}
		})
	}
}
