package schema

import "testing"

func TestPlain(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"one\n\tline  of text\n", "one line of text"},
		{"see [Set], [Set.Of] and [reflect.Type]", "see Set, Set.Of and reflect.Type"},
		{`"[::1]:8080", "create[0]" or []string`, `"[::1]:8080", "create[0]" or []string`},
	} {
		if got := plain(tc.text); got != tc.want {
			t.Errorf("plain(%q) = %q, want %q", tc.text, got, tc.want)
		}
	}
}
