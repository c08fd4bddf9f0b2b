package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/api"
	"banger/internal/testenv"
)

const basicSecret = "Basic dXNlcjpzZWNyZXQ=" // user:secret

// wantPassword makes a registry refuse who does not know the password, once asked is true.
func wantPassword(asked *bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if *asked && r.Header.Get("Authorization") != basicSecret {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// authsOf is a docker configuration with the password itself.
func authsOf(host, secret string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(secret)))
}

// dockerConfig makes text docker's configuration and puts programs on the PATH.
func dockerConfig(t *testing.T, text string, programs map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	files := map[string]string{"config.json": text}
	for name, script := range programs {
		files[name] = "#!/bin/sh\n" + script
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// Credentials come from a helper, for one registry or for all; a helper or a configuration that is broken is told.
func TestCredentialHelpers(t *testing.T) {
	asked := false
	host := serveRegistry(t, wantPassword(&asked))
	push(t, host+"/app:1", bigImage(t, 1))
	asked = true
	// A helper is given the registry, or the repository, on its standard input (github.com/docker/docker-credential-helpers).
	const nothing = "echo credentials not found in native keychain; exit 1"
	good := fmt.Sprintf(`read -r server; [ "$1 $server" = 'get %s' ] && echo '{"ServerURL":"%s","Username":"user","Secret":"secret"}' && exit; %s`, host, host, nothing)
	for name, tc := range map[string]struct {
		config, helper string
		want           error
		say            string
	}{
		"for this registry": {fmt.Sprintf(`{"credHelpers":{%q:"good"}}`, host), good, nil, ""},
		"for all":           {`{"credsStore":"good"}`, good, nil, ""},
		"knows nothing":     {`{"credsStore":"good"}`, nothing, banger.ErrRefused, "docker login"},
		"fails":             {`{"credsStore":"good"}`, "echo the keyring is locked; exit 1", banger.ErrRefused, "the keyring is locked"},
		"is missing":        {`{"credsStore":"nosuch"}`, good, banger.ErrRefused, "docker-credential-nosuch"},
		"no answer":         {`{"credsStore":"good"}`, "echo nonsense", banger.ErrRefused, host},
		"no configuration":  {"{", good, banger.ErrRefused, "config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			dockerConfig(t, tc.config, map[string]string{"docker-credential-good": tc.helper})
			m := newManager(t, "exit 1")
			image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil)
			if tc.want != nil {
				if text := fmt.Sprint(err, banger.HintOf(err)); !errors.Is(err, tc.want) || !strings.Contains(text, tc.say) || !strings.Contains(text, "docker login") {
					t.Errorf("Pull: %v, want %v with %q", text, tc.want, tc.say)
				}
				wantNothing(t, m)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantFiles(t, m, image, 1)
		})
	}
}

// A helper that never answers, as one that asks where nobody looks, is told; waiting for it can be given up.
func TestCredentialHelperHangs(t *testing.T) {
	dir := dockerConfig(t, `{"credsStore":"hangs"}`, nil)
	helper := fmt.Sprintf("#!/bin/sh\necho $$ >>%s/new; mv %s/new %s/pids; exec sleep 1000\n", dir, dir, dir)
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-hangs"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		text, _ := os.ReadFile(filepath.Join(dir, "pids"))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	m := newManager(t, "exit 1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := m.Pull(ctx, api.PullRequest{Ref: "127.0.0.1:1/app:1"}, nil)
		ended <- err
	}()
	testenv.WaitFor(t, 20*time.Second, "the helper", func() bool {
		_, err := os.Stat(filepath.Join(dir, "pids"))
		return err == nil
	})
	cancel()
	if err := <-ended; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Pull that was given up: %v", err)
	}
	m.registries.Idle = 50 * time.Millisecond
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: "127.0.0.1:1/app:1"}, nil); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "credential helper") || banger.HintOf(err) == "" {
		t.Errorf("Pull: %v, %q", err, banger.HintOf(err))
	}
	wantNothing(t, m)
}

// A password goes to the registry and to its token server, which gives tokens for just this repository, and not to where layers are
// redirected.
func TestCredentialsStayWithTheRegistry(t *testing.T) {
	plain, elsewhere := serveLayers(t)
	img := bigImage(t, 1, 2)
	push(t, elsewhere+"/team/app:1", img)
	var mu sync.Mutex
	var scopes []string
	redirects := 0
	leak := func(_ http.ResponseWriter, r *http.Request) bool {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("another server was told %q", got)
		}
		return true
	}
	plain.before = leak
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch auth := r.Header.Get("Authorization"); {
		case r.URL.Path == "/token" && auth == basicSecret:
			scopes = append(scopes, r.URL.Query()["scope"]...)
			fmt.Fprint(w, `{"access_token":"token","expires_in":300}`)
		case r.URL.Path == "/token":
			w.WriteHeader(http.StatusForbidden)
		case auth != "Bearer token":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="repository:team/app:pull"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "/blobs/"):
			redirects++
			http.Redirect(w, r, "http://"+elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
		default:
			plain.next.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	dockerConfig(t, authsOf(host, "user:secret"), nil)
	m := newManager(t, "exit 1")
	image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/team/app:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, m, image, 1, 2)
	if redirects < 4 { // three layers and the configuration
		t.Errorf("%d redirects", redirects)
	}
	for _, scope := range scopes {
		if scope != "repository:team/app:pull" {
			t.Errorf("asked for the scope %q", scope)
		}
	}
	if len(scopes) == 0 {
		t.Error("no token was asked for")
	}
	dockerConfig(t, authsOf(host, "user:wrong"), nil)
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/team/app:1", Name: "other"}, nil); !errors.Is(err, banger.ErrRefused) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
}
