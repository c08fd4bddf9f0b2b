package banger

import (
	"cmp"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestParseNetPolicy(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"full", ""}, {"none", ""},
		{"allow=github.com,*.pypi.org,10.0.0.0/8:5432,vm:db:5432", ""},
		{"allow=GitHub.com.:443", "allow=github.com:443"},
		{"allow=*", ""}, {"allow=*:443", ""},
		{"allow=1.2.3.4", ""}, {"allow=1.2.3.4/32:80", "allow=1.2.3.4:80"},
		{"allow=2001:db8::/32", ""}, {"allow=[2001:db8::/32]:443", ""}, {"allow=[2001:db8::1]:443,2001:db8::1", ""},
		{"allow=[2001:db8::1]", "allow=2001:db8::1"},
		{"allow=vm:db,host:8080", ""},
		{"full,allow=10.0.0.0/8", ""}, {"full,deny=evil.example,*.evil.example", "deny=evil.example,*.evil.example"},
		{"full,allow=host:1,deny=evil.example", ""}, {"deny=evil.example", ""}, {"none,deny=evil.example", ""},
		{"allow=a.example,deny=b.a.example:80", ""}, {"allow=a,a,a", "allow=a"}, {"allow=a,deny=b,allow=c", "allow=a,c,deny=b"},
		{"allow=full", ""}, // a name
	} {
		p, err := ParseNetPolicy(test.in)
		if want := cmp.Or(test.want, test.in); err != nil || p.String() != want {
			t.Errorf("ParseNetPolicy(%q) = %q, %v, want %q", test.in, p, err, want)
		}
	}
}

func TestParseNetPolicyPointsAtMistakes(t *testing.T) {
	for _, test := range []struct{ in, at, say string }{
		{"", "at character 1:", "want"},
		{"ful", "at character 1:", `"ful": want "full"`},
		{"github.com", "at character 1:", `want "full"`},
		{"allow=", "at character 7:", "missing"},
		{"allow=a,,b", "at character 9:", "missing"},
		{"allow=github.com,10.0.0.0/33", "at character 18:", `"10.0.0.0/33": want an address`},
		{"allow=10.0.0.1/8", "at character 7:", "want 10.0.0.0/8"},
		{"allow=a:0", "at character 7:", `port "0"`},
		{"allow=a:65536", "", `port "65536"`},
		{"allow=a:080", "", "port"},
		{"allow=a:", "", "port is missing"},
		{"allow=a b", "", "want a name"},
		{"allow=*a.example", "", "want a name"},
		{"allow=a.*.example", "", "want a name"},
		{"allow=ünï.example", "", "xn--"},
		{"allow=vm:", "", "vm:NAME"}, {"allow=vm:Bad:1", "", "vm:NAME"}, {"allow=vm:a:b:c", "", "port"},
		{"allow=host:", "", "host:PORT"}, {"allow=host:x", "", "port"},
		{"allow=[::1", "", "[ADDRESS]:PORT"}, {"allow=::ffff:1.2.3.4", "", "IPv4 address itself"},
		{"allow=fe80::1%eth0", "", "want an address"}, {"allow=1.2.3", "", "want an address"},
		{"deny=vm:db", "at character 6:", "denied unless allowed"},
		{"allow=" + strings.Repeat("a", 64) + ".example", "", "want a name"},
		{strings.Repeat("x", maxNetText+1), "", "bytes"},
	} {
		_, err := ParseNetPolicy(test.in)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.at) || !strings.Contains(err.Error(), test.say) {
			t.Errorf("ParseNetPolicy(%.60q) = %v, want %q and %q", test.in, err, test.at, test.say)
		}
	}
	_, err := ParseNetPolicy("allow=ok,-bad")
	if !strings.HasSuffix(err.Error(), "\nallow=ok,-bad\n         ^") {
		t.Errorf("the place is shown as %q", err)
	}
	many := "allow=a"
	for i := range maxNetRules {
		many += "," + NetRule{Name: "n", Port: uint16(i + 1)}.String()
	}
	if _, err := ParseNetPolicy(many); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "more than 256 rules") {
		t.Errorf("too many rules: %v", err)
	}
}

func TestNetPolicyJSON(t *testing.T) {
	type spec struct {
		Net NetPolicy `json:"net,omitzero"`
	}
	for _, text := range []string{`{}`, `{"net":"none"}`, `{"net":"allow=a.example:1"}`} {
		var s spec
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		if out, err := json.Marshal(s); err != nil || string(out) != text {
			t.Errorf("%s is encoded as %s, %v", text, out, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"net":"nonsense"}`), &spec{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestNetChange(t *testing.T) {
	parse := func(text string) NetPolicy {
		p, err := ParseNetPolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, test := range []struct {
		from   string
		change NetChange
		want   string
	}{
		{"full", NetChange{Deny: []string{"evil.example"}}, "deny=evil.example"},
		{"full", NetChange{Set: NetNone}, "none"},
		{"none", NetChange{Allow: []string{"a", "b:1"}}, "allow=a,b:1"},
		{"allow=a,b", NetChange{Deny: []string{"a"}}, "allow=b,deny=a"},
		{"allow=b,deny=a", NetChange{Allow: []string{"a"}}, "allow=b,a"},
		{"allow=a,b", NetChange{Remove: []string{"A."}}, "allow=b"},
		{"allow=a", NetChange{Remove: []string{"a"}}, "none"},
		{"allow=a", NetChange{Set: NetFull, Allow: []string{"10.0.0.0/8"}}, "full,allow=10.0.0.0/8"},
	} {
		if got, err := test.change.Apply(parse(test.from)); err != nil || got.String() != test.want {
			t.Errorf("%+v of %s = %s, %v, want %s", test.change, test.from, got, err, test.want)
		}
	}
	if got, err := (NetChange{Allow: []string{"10.0.0.0/8"}}).Apply(NetPolicy{}); err != nil || got.String() != "full,allow=10.0.0.0/8" {
		t.Errorf("of no policy: %s, %v", got, err)
	}
	if _, err := (NetChange{Remove: []string{"b"}}).Apply(parse("allow=a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("removing what is not there: %v", err)
	}
	for _, bad := range []NetChange{{Allow: []string{"a b"}}, {Deny: []string{"vm:x"}}, {Remove: []string{""}}} {
		if _, err := bad.Apply(NetFull); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func FuzzParseNetPolicy(f *testing.F) {
	for _, text := range []string{"full", "none", "allow=a,*.b:1,10.0.0.0/8,[::1]:2,vm:x,host:3,deny=c", "full,allow=::/0,deny=1.1.1.1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseNetPolicy(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%q: %v has no kind", text, err)
			}
			return
		}
		again, err := ParseNetPolicy(p.String())
		if err != nil || again.String() != p.String() || again.Open != p.Open || len(again.Allow) != len(p.Allow) || len(again.Deny) != len(p.Deny) {
			t.Fatalf("%q is written %q and read %+v, %v", text, p, again, err)
		}
		for _, rule := range append(p.Allow, p.Deny...) {
			if same, err := ParseNetRule(rule.String()); err != nil || same != rule {
				t.Fatalf("rule %+v is written %q and read %+v, %v", rule, rule, same, err)
			}
		}
	})
}
