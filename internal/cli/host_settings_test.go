package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/api"
)

func TestHostProxy(t *testing.T) {
	host := map[string]string{"http_proxy": "http://proxy:3128", "NO_PROXY": "localhost", "https_proxy": "http://other:1", "HOME": "/home/me"}
	lookup := func(name string) (string, bool) { value, ok := host[name]; return value, ok }
	for _, tc := range []struct {
		name  string
		flags hostFlags
		want  map[string]string
	}{
		{"not asked for", hostFlags{}, map[string]string{"https_proxy": "mine"}},
		{"asked for", hostFlags{proxy: true}, map[string]string{"https_proxy": "mine", "http_proxy": "http://proxy:3128", "NO_PROXY": "localhost"}},
	} {
		req := api.CreateRequest{Env: map[string]string{"https_proxy": "mine"}}
		if err := tc.flags.apply(&req, lookup); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, req.Env); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}
