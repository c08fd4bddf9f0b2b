package project

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SignedIn tells whether docker's or podman's configuration may have credentials for a registry. Where a program keeps them all, or a
// file can't be read, it may.
func SignedIn(registry, home string, getenv func(string) string) bool {
	files := []string{filepath.Join(cmp.Or(getenv("DOCKER_CONFIG"), filepath.Join(home, ".docker")), "config.json")}
	if file := getenv("REGISTRY_AUTH_FILE"); file != "" {
		files = append(files, file)
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var config struct {
			Auths       map[string]json.RawMessage `json:"auths"`
			CredHelpers map[string]string          `json:"credHelpers"`
			CredsStore  string                     `json:"credsStore"`
		}
		if err != nil || json.Unmarshal(text, &config) != nil || config.CredsStore != "" {
			return true
		}
		for name := range config.Auths {
			if sameRegistry(name, registry) {
				return true
			}
		}
		for name := range config.CredHelpers {
			if sameRegistry(name, registry) {
				return true
			}
		}
	}
	return false
}

// sameRegistry compares by host: keys are hosts, URLs, or hosts with the beginning of a path.
func sameRegistry(key, registry string) bool {
	_, rest, ok := strings.Cut(key, "://")
	if !ok {
		rest = key
	}
	host, _, _ := strings.Cut(rest, "/")
	canonical := func(host string) string {
		host = strings.ToLower(host)
		if host == "index.docker.io" || host == "registry-1.docker.io" {
			return "docker.io"
		}
		return host
	}
	return canonical(host) == canonical(registry)
}
