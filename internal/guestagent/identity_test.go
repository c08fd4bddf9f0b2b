package guestagent

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestEnsureMachineID(t *testing.T) {
	wellFormed := regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\n$`)
	seen := map[string]bool{}
	for _, before := range []string{"none", "", "\n", "uninitialized\n"} {
		path := filepath.Join(t.TempDir(), "machine-id")
		if before != "none" {
			if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := ensureMachineID(path); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !wellFormed.Match(got) || seen[string(got)] {
			t.Errorf("%q becomes %q, %v", before, got, err)
		}
		seen[string(got)] = true
		if err := ensureMachineID(path); err != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(path); err != nil || string(again) != string(got) {
			t.Errorf("%q becomes %q, %v", got, again, err)
		}
	}
}
