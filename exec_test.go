package banger

import "testing"

func TestIsRoot(t *testing.T) {
	for _, user := range []string{"", "root", "0", "0:0", "root:staff"} {
		if !IsRoot(user) {
			t.Errorf("%q is not root", user)
		}
	}
	for _, user := range []string{"app", "1000", "1000:0", "00", "rooty"} {
		if IsRoot(user) {
			t.Errorf("%q is root", user)
		}
	}
}
