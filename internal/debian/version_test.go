package debian

import (
	"errors"
	"math/rand/v2"
	"os/exec"
	"testing"

	"banger"
)

// ordered are versions from old to new; those in one line are equal.
var ordered = [][]string{
	{"0~~"}, {"0~~a"}, {"0~"}, {"0", "0:0", "00", "0-0"}, {"0.0"}, {"1.0~rc1"}, {"1.0~rc1+b1"}, {"1.0", "1.00", "1.0-0"}, {"1.0-1"}, {"1.0-1+b1"}, {"1.0a"}, {"1.0+b1"},
	{"1.0.1"}, {"1.2"}, {"1.10"}, {"6.1.90-1"}, {"6.1.176+1"}, {"6.1.192+2"}, {"99999999999999999999"}, {"100000000000000000000"},
	{"1:0.1"}, {"1:0.1-1-1"}, {"2:0:1"},
}

func mustVersion(t testing.TB, text string) Version {
	t.Helper()
	v, err := ParseVersion(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVersionOrder(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Logf("not compared with dpkg: %v", err)
	}
	for i, line := range ordered {
		for j, other := range ordered {
			for _, a := range line {
				for _, b := range other {
					got := mustVersion(t, a).Compare(mustVersion(t, b))
					if want := min(max(i-j, -1), 1); got != want {
						t.Errorf("%s compared with %s = %d, want %d", a, b, got, want)
					}
					relation := []string{"lt", "eq", "gt"}[got+1]
					if dpkg != "" && exec.Command(dpkg, "--compare-versions", a, relation, b).Run() != nil {
						t.Errorf("dpkg does not say that %s is %s %s", a, relation, b)
					}
				}
			}
		}
	}
}

// TestVersionAgainstDpkg compares versions and what are none, made of the characters that matter.
func TestVersionAgainstDpkg(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skipf("needs dpkg: %v", err)
	}
	random := rand.New(rand.NewPCG(4, 2))
	word := func() string {
		const letters = "00112~~.:--+aZ"
		b := []byte{letters[random.IntN(10)]} // no '+': dpkg takes it for the sign of an epoch, which is a digit by deb-version(7)
		for range random.IntN(7) {
			b = append(b, letters[random.IntN(len(letters))])
		}
		return string(b)
	}
	var last Version
	valid := 0
	for range 1500 {
		text := word()
		v, err := ParseVersion(text)
		if known := exec.Command(dpkg, "--validate-version", text).Run(); (known == nil) != (err == nil) {
			t.Errorf("ParseVersion(%q): %v, dpkg says %v", text, err, known)
		}
		if err != nil {
			continue
		}
		valid++
		relation := []string{"lt", "eq", "gt"}[v.Compare(last)+1]
		if last.upstream != "" && exec.Command(dpkg, "--compare-versions", text, relation, last.String()).Run() != nil {
			t.Errorf("dpkg does not say that %s is %s %s", text, relation, last)
		}
		last = v
	}
	if valid < 100 {
		t.Errorf("%d valid versions of 1500, want more", valid)
	}
}

func TestParseVersionErrors(t *testing.T) {
	for _, text := range []string{"", ":", "1:", "a:1", "-1:1", "2147483648:1", "a", "-1", "1-", "1 2", "1/2", "1-2:3_4", "1\n", "é1"} {
		if v, err := ParseVersion(text); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("ParseVersion(%q) = %v, %v, want invalid", text, v, err)
		}
	}
}

// FuzzVersion wants of versions that they are in one order, and that the text of one reads as itself.
func FuzzVersion(f *testing.F) {
	f.Add("1:1.0~rc1-1", "1.0", "1.0-1+b1")
	f.Add("0~~", "0~~a", "2:0:1-1-1")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var v [3]Version
		for i, text := range []string{a, b, c} {
			var err error
			if v[i], err = ParseVersion(text); err != nil {
				return
			}
			if again, err := ParseVersion(v[i].String()); err != nil || again.Compare(v[i]) != 0 {
				t.Fatalf("%q reads as %v, which reads as %v, %v", text, v[i], again, err)
			}
		}
		for _, x := range v {
			if x.Compare(x) != 0 {
				t.Fatalf("%v is not equal to itself", x)
			}
			for _, y := range v {
				if x.Compare(y) != -y.Compare(x) {
					t.Fatalf("%v to %v = %d, the other way %d", x, y, x.Compare(y), y.Compare(x))
				}
				for _, z := range v {
					if x.Compare(y) <= 0 && y.Compare(z) <= 0 && x.Compare(z) > 0 {
						t.Fatalf("%v ≤ %v ≤ %v, but not the first and the last", x, y, z)
					}
				}
			}
		}
	})
}
