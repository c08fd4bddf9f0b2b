package catalog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
)

func TestPublish(t *testing.T) {
	key := newKey(1)
	dir, _ := published(t, key)
	keys := []ed25519.PrivateKey{key}
	if _, err := Publish(dir, []ed25519.PrivateKey{newKey(2)}, Update{Now: now, Lifetime: lifetime}); !errors.Is(err, banger.ErrRefused) || !strings.Contains(banger.HintOf(err), "--key OLD") {
		t.Errorf("with another key: %v", err)
	}
	both := []ed25519.PrivateKey{newKey(2), key}
	b, err := Pack(t.Context(), dir, "zap", testFiles(), func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	entry := banger.CatalogImage{Bundle: b, Key: strings.Repeat("0", 64), Boot: banger.BootSystem}
	if _, err := Publish(dir, both, Update{Now: now, Lifetime: lifetime, Images: []banger.CatalogImage{entry}}); err != nil {
		t.Fatal(err)
	}
	entry.Name, entry.Description = "app", "new"
	index, err := Publish(dir, both[:1], Update{Now: now, Lifetime: lifetime, Images: []banger.CatalogImage{entry}})
	if err != nil || index.Serial != 3 || len(index.Images) != 2 || index.Images[0].Description != "new" || index.Images[1].Name != "zap" || len(index.Kernels) != 1 {
		t.Errorf("Publish = %+v, %v", index, err)
	}
	if _, err := reader(t, dir, newKey(2)).Index(t.Context()); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, err := reader(t, dir, key).Index(t.Context()); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("the old key: %v", err)
	}
	bad := entry
	for name, change := range map[string]func(){"a bundle that is not there": func() { bad.URL = "nosuch.tar.zst" }, "of another size": func() { bad.SizeBytes++ },
		"a bad entry": func() { bad.Boot = "evil" }, "a url up": func() { bad.URL = "../x" }} {
		bad = entry
		change()
		before, _ := os.ReadFile(filepath.Join(dir, indexName))
		if _, err := Publish(dir, both[:1], Update{Now: now, Lifetime: lifetime, Images: []banger.CatalogImage{bad}}); err == nil {
			t.Errorf("%s was published", name)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, indexName)); !bytes.Equal(before, after) {
			t.Errorf("%s changed the index", name)
		}
	}
	if _, err := Publish(dir, both[:1], Update{Now: now, Lifetime: lifetime, WithoutImages: []string{"zapp"}}); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "zap") {
		t.Errorf("without what is not there: %v", err)
	}
	index, err = Publish(dir, both[:1], Update{Now: now, Lifetime: lifetime, WithoutImages: []string{"app"}, WithoutKernels: []string{"debian"}})
	if err != nil || len(index.Images) != 1 || index.Images[0].Name != "zap" || len(index.Kernels) != 0 {
		t.Errorf("without some: %+v, %v", index, err)
	}
	if read, err := reader(t, dir, newKey(2)).Index(t.Context()); err != nil || len(read.Kernels) != 0 || read.Kernels == nil {
		t.Errorf("without some, read: %+v, %v", read, err)
	}
	if _, err := Publish(filepath.Join(dir, "nosuch"), keys, Update{}); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("to nowhere: %v", err)
	}
	put(t, filepath.Join(dir, indexName), []byte("{}"))
	if _, err := Publish(dir, both, Update{Now: now, Lifetime: lifetime}); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("a tampered index was followed: %v", err)
	}
}

func TestPublishWhileOthersRead(t *testing.T) {
	key := newKey(1)
	dir, _ := published(t, key)
	done, turn := make(chan error, 1), make(chan struct{})
	go func() {
		var err error
		for i := 0; i < 30 && err == nil; i++ {
			<-turn
			_, err = Publish(dir, []ed25519.PrivateKey{key}, Update{Now: now, Lifetime: lifetime})
		}
		done <- err
	}()
	c := reader(t, dir, key)
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		case turn <- struct{}{}:
		}
		if _, err := c.Index(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	made, err := GenerateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ReadKey(path)
	if err != nil || !made.Equal(key.Public()) {
		t.Errorf("ReadKey: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := GenerateKey(path); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("over a key: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(path); !errors.Is(err, banger.ErrRefused) || banger.HintOf(err) != "chmod 600 "+path {
		t.Errorf("that others can read: %v", err)
	}
	if _, err := ReadKey(path + "x"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("that is not there: %v", err)
	}
	for _, text := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		other := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(other); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOpenSSLAgrees(t *testing.T) {
	openssl := testenv.RequireTool(t, "openssl")
	made := filepath.Join(t.TempDir(), "openssl.pem")
	testenv.Run(t, openssl, "genpkey", "-algorithm", "ed25519", "-out", made)
	if err := os.Chmod(made, 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ReadKey(made)
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := published(t, key)
	text, err := os.ReadFile(filepath.Join(dir, indexName+signatureEnding))
	if err != nil {
		t.Fatal(err)
	}
	signatures, err := parseSignatures(text)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "raw"), signatures[0].bytes)
	testenv.Run(t, openssl, "pkeyutl", "-verify", "-inkey", made, "-rawin", "-in", filepath.Join(dir, indexName), "-sigfile", filepath.Join(dir, "raw"))
}

func TestSamePackSameBytes(t *testing.T) {
	var first []byte
	for range 3 {
		dir := t.TempDir()
		path := filepath.Join(dir, "content")
		put(t, path, append(random(5<<20), bytes.Repeat([]byte("text "), 1<<20)...))
		if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		b, err := Pack(t.Context(), dir, "x", []File{{Name: "rootfs.ext4", Path: path}, {Name: "image.json", Data: []byte("{}")}}, func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, b.URL))
		if err != nil || int64(len(text)) != b.SizeBytes {
			t.Fatal(err)
		}
		if first == nil {
			first = text
		}
		if !bytes.Equal(first, text) {
			t.Error("equal files gave other bytes")
		}
	}
}

func TestPackLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	content := filepath.Join(t.TempDir(), "content")
	put(t, content, random(4<<20))
	dir := t.TempDir()
	if _, err := Pack(ctx, dir, "x", []File{{Name: "a", Path: content}}, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	for _, path := range []string{filepath.Join(dir, "nosuch"), dir} {
		if _, err := Pack(t.Context(), dir, "x", []File{{Name: "a", Path: path}}, func(int64) {}); err == nil {
			t.Errorf("%s was packed", path)
		}
	}
	wantEmpty(t, dir)
	left := filepath.Join(dir, ".x-abcdefgh"+stagingEnding)
	put(t, left, []byte("of a pack that was cut off"))
	used, err := os.Create(filepath.Join(dir, ".y-abcdefgh"+stagingEnding))
	if err == nil {
		err = syscall.Flock(int(used.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	if _, err := Pack(t.Context(), dir, "x", []File{{Name: "a"}}, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was cut off is still there: %v", err)
	}
	if _, err := os.Stat(used.Name()); err != nil {
		t.Errorf("what is being made: %v", err)
	}
	if _, err := Pack(t.Context(), filepath.Join(dir, "nosuch"), "x", nil, func(int64) {}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("to nowhere: %v", err)
	}
}
