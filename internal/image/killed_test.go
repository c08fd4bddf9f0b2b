package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/api"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

const killedEnv = "BANGER_TEST_KILLED"

// A daemon that is killed at any moment of register, promote, prune and delete leaves whole images, and after CleanUp nothing else.
func TestKilled(t *testing.T) {
	if work := os.Getenv(killedEnv); work != "" {
		t.Fatal(workForever(work))
	}
	work := t.TempDir()
	var content [2][]byte
	for i := range content {
		path := hostRootfs(t, "-L", fmt.Sprint("file", i))
		var err error
		if content[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		testenv.Run(t, "mv", path, filepath.Join(work, fmt.Sprint(i)))
	}
	m := New(Config{Dir: statedir.Dir{Root: filepath.Join(work, "s")}})
	if err := m.Dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for range 25 {
		workAndDie(t, work)
		m := New(m.Config)
		if err := m.CleanUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkWhole(t, m, seen)
		if t.Failed() {
			return
		}
	}
	for i := range content {
		if now, err := os.ReadFile(filepath.Join(work, fmt.Sprint(i))); err != nil || !bytes.Equal(now, content[i]) {
			t.Errorf("the user's file %d changed: %v", i, err)
		}
	}
	t.Logf("found %v", seen)
}

// workAndDie runs workForever in another process and kills that.
func workAndDie(t *testing.T, work string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(self, "-test.run", "^TestKilled$")
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), killedEnv+"="+work), &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Millisecond+rand.N(300*time.Millisecond), func() { cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v: %s", err, &out)
	}
}

// workForever ends with an error only.
func workForever(work string) error {
	ctx := context.Background()
	m := New(Config{Dir: statedir.Dir{Root: filepath.Join(work, "s")}})
	for i := 0; ; i++ {
		image, err := m.Register(ctx, api.RegisterRequest{Name: "mine", Rootfs: filepath.Join(work, fmt.Sprint(i%2))}, nil)
		if err == nil && i%3 != 0 {
			image, err = m.Promote(ctx, "mine", nil)
		}
		if err == nil && i%2 == 0 {
			_, err = m.Prune(ctx, nil, false, false)
		}
		if err == nil && i%4 == 3 {
			err = m.Delete(image.Key)
		}
		if err != nil {
			return err
		}
	}
}

// checkWhole checks that every directory is an image with all its bytes.
func checkWhole(t *testing.T, m *Manager, seen map[string]int) {
	t.Helper()
	for _, key := range names(t, m.Dir.Images()) {
		image, err := m.Get(key)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		base, err := m.Base(t.Context(), image, nil)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		content, err := os.ReadFile(base)
		sum := sha256.Sum256(content)
		if want := keyOf(banger.Image{Name: "mine", Boot: image.Boot}, "registered "+hex.EncodeToString(sum[:])+" "); err != nil || want != key {
			t.Errorf("%s has other bytes: %v", key, err)
		}
		_, statErr := os.Stat(m.Dir.Image(key).Rootfs())
		if _, err := os.Stat(m.Dir.Image(key).Seed()); err != nil || (image.Registered == nil) != (statErr == nil) || len(names(t, m.Dir.Image(key).Path)) > 3 {
			t.Errorf("%s: seed %v, base %v, files %v", key, err, statErr, names(t, m.Dir.Image(key).Path))
		}
		if image.Registered != nil {
			seen["registered"]++
		} else {
			seen["promoted"]++
		}
		if !errors.Is(statErr, os.ErrNotExist) && statErr != nil {
			t.Error(statErr)
		}
	}
}
