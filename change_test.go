package banger

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpecChange(t *testing.T) {
	text := func(s string) *string { return &s }
	number := func(n int) *int { return &n }
	size := func(n int64) *int64 { return &n }
	spec := VMSpec{Name: "x", VCPU: 2, MemoryMiB: 1024, DiskBytes: 8 << 30, Env: map[string]string{"A": "1", "B": "2"}, Labels: map[string]string{"team": "blue"},
		Sync: []FileSync{{Host: "~/a"}, {Host: "~/b", Guest: "~/x"}, {Host: "~/b", Guest: "~/y", Mode: "0400"}}}
	for _, tc := range []struct {
		what   string
		change SpecChange
		want   func(*VMSpec)
		fields []FieldChange
	}{
		{"nothing", SpecChange{}, func(*VMSpec) {}, []FieldChange{}},
		{"the same", SpecChange{VCPU: number(2), MemoryMiB: number(1024), DiskBytes: size(8 << 30), Env: map[string]*string{"A": text("1")}, Labels: map[string]*string{"none": nil}},
			func(*VMSpec) {}, []FieldChange{}},
		{"sizes", SpecChange{VCPU: number(4), MemoryMiB: number(2048), DiskBytes: size(8<<30 + 1)},
			func(s *VMSpec) { s.VCPU, s.MemoryMiB, s.DiskBytes = 4, 2048, 8<<30+1 },
			[]FieldChange{{"vcpu", "2", "4"}, {"memory", "1024 MiB", "2048 MiB"}, {"disk", "8 GiB", "8 GiB"}}},
		{"variables", SpecChange{Env: map[string]*string{"A": text("secret"), "B": nil, "C": text("")}},
			func(s *VMSpec) { s.Env = map[string]string{"A": "secret", "C": ""} },
			[]FieldChange{{"env A", "(set)", "(set)"}, {"env B", "(set)", "-"}, {"env C", "-", "(set)"}}},
		{"the last label", SpecChange{Labels: map[string]*string{"team": nil}}, func(s *VMSpec) { s.Labels = nil }, []FieldChange{{"label team", `"blue"`, "-"}}},
		{"a label", SpecChange{Labels: map[string]*string{"team": text("red"), "new": text("")}},
			func(s *VMSpec) { s.Labels = map[string]string{"team": "red", "new": ""} }, []FieldChange{{"label new", "-", `""`}, {"label team", `"blue"`, `"red"`}}},
		{"a synced file", SpecChange{RemoveSync: []string{"~/b", "/home/me/b"}}, func(s *VMSpec) { s.Sync = []FileSync{{Host: "~/a"}} },
			[]FieldChange{{"sync ~/b", "~/b to ~/x", "-"}, {"sync ~/b", "~/b to ~/y with mode 0400", "-"}}},
		{"all synced files", SpecChange{RemoveSync: []string{"~/b", "~/a"}}, func(s *VMSpec) { s.Sync = nil },
			[]FieldChange{{"sync ~/a", "~/a", "-"}, {"sync ~/b", "~/b to ~/x", "-"}, {"sync ~/b", "~/b to ~/y with mode 0400", "-"}}},
		{"a file that is not synced", SpecChange{RemoveSync: []string{"~/c"}}, func(*VMSpec) {}, []FieldChange{}},
	} {
		want := spec
		tc.want(&want)
		before := spec.Labels["team"] + spec.Env["A"]
		real := SpecChange{}.And(tc.change, spec)
		for _, change := range []SpecChange{tc.change, real} {
			if diff := cmp.Diff(want, change.Apply(spec)); diff != "" {
				t.Errorf("%s: Apply (-want +got):\n%s", tc.what, diff)
			}
		}
		if diff := cmp.Diff(tc.fields, real.Fields(spec)); diff != "" {
			t.Errorf("%s: Fields (-want +got):\n%s", tc.what, diff)
		}
		if real.IsZero() != (len(tc.fields) == 0) {
			t.Errorf("%s: IsZero = %v", tc.what, real.IsZero())
		}
		if spec.Labels["team"]+spec.Env["A"] != before {
			t.Errorf("%s: the old spec changed", tc.what)
		}
		// To change it back leaves nothing to do.
		back := SpecChange{VCPU: &spec.VCPU, MemoryMiB: &spec.MemoryMiB, DiskBytes: &spec.DiskBytes,
			Env: map[string]*string{"A": text("1"), "B": text("2"), "C": nil}, Labels: map[string]*string{"team": text("blue"), "new": nil, "none": nil}}
		if both := tc.change.And(back, spec); !both.IsZero() && tc.change.RemoveSync == nil { // there is no way back for those
			t.Errorf("%s: and back leaves %+v", tc.what, both)
		}
	}
}
