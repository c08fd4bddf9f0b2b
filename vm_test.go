package banger_test

import (
	"errors"
	"strings"
	"testing"

	"banger"
)

func TestValidateVMName(t *testing.T) {
	for _, tc := range []struct {
		name string
		ok   bool
	}{
		{"devbox", true}, {"a", true}, {"0", true}, {"a-b-9", true}, {strings.Repeat("x", 63), true},
		{"", false}, {strings.Repeat("x", 64), false}, {"-a", false}, {"a-", false}, {"A", false}, {"a.b", false},
		{"a b", false}, {"a\n", false}, {"../x", false}, {"é", false}, {"a\x00", false},
	} {
		err := banger.ValidateVMName(tc.name)
		if (err == nil) != tc.ok {
			t.Errorf("ValidateVMName(%q) = %v, want ok %v", tc.name, err, tc.ok)
		}
		if err != nil && !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("ValidateVMName(%q) is of kind %s, want invalid", tc.name, banger.KindName(err))
		}
	}
}

func validSpec() banger.VMSpec {
	return banger.VMSpec{Name: "devbox", Image: "debian-bookworm-slim", VCPU: 1, MemoryMiB: 512, DiskBytes: 8 << 30}
}

func TestVMSpecValidate(t *testing.T) {
	with := func(change func(*banger.VMSpec)) banger.VMSpec {
		s := validSpec()
		change(&s)
		return s
	}
	for _, tc := range []struct {
		what string
		spec banger.VMSpec
		want string // in the message; empty: valid
	}{
		{"valid", validSpec(), ""},
		{"no image", with(func(s *banger.VMSpec) { s.Image = "" }), "image"},
		{"no vcpu", with(func(s *banger.VMSpec) { s.VCPU = 0 }), "vcpu 0"},
		{"negative vcpu", with(func(s *banger.VMSpec) { s.VCPU = -1 }), "vcpu -1"},
		{"too many vcpu", with(func(s *banger.VMSpec) { s.VCPU = 256 }), "vcpu 256"},
		{"small memory", with(func(s *banger.VMSpec) { s.MemoryMiB = 10 }), "memory 10 MiB"},
		{"small disk", with(func(s *banger.VMSpec) { s.DiskBytes = 1 << 10 }), "disk size 1 KiB"},
		{"huge disk", with(func(s *banger.VMSpec) { s.DiskBytes = 17 << 40 }), "disk size 17 TiB"},
		{"bad env name", with(func(s *banger.VMSpec) { s.Env = map[string]string{"A-B": ""} }), `"A-B"`},
		{"NUL in env", with(func(s *banger.VMSpec) { s.Env = map[string]string{"A": "\x00"} }), "NUL"},
		{"bad label", with(func(s *banger.VMSpec) { s.Labels = map[string]string{"a b": ""} }), `"a b"`},
	} {
		err := tc.spec.Validate()
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: Validate() = %v, want nil", tc.what, err)
		case tc.want != "" && (err == nil || !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: Validate() = %v, want an invalid error with %q", tc.what, err, tc.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want int64
	}{
		{"0", 0}, {"4096", 4096}, {"4096B", 4096}, {"1K", 1 << 10}, {"512M", 512 << 20}, {"8G", 8 << 30}, {"8GiB", 8 << 30},
		{"8 gb", 8 << 30}, {"1.5G", 3 << 29}, {"2T", 2 << 40},
	} {
		if got, err := banger.ParseSize(tc.in); err != nil || got != tc.want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", tc.in, got, err, tc.want)
		}
	}
	for _, in := range []string{"", "G", "8X", "-1G", "8GG", "8E", "NaN", "Inf", "1e400", "9000000T", "8G8", "0x10"} {
		if got, err := banger.ParseSize(in); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("ParseSize(%q) = %d, %v, want invalid", in, got, err)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"8G", "1.5 MiB", "0", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := banger.ParseSize(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("ParseSize(%q) = %d, want no negative size", s, n)
		}
		again, err := banger.ParseSize(banger.FormatSize(n))
		if err != nil {
			t.Fatalf("ParseSize(FormatSize(%d)): %v", n, err)
		}
		if diff := float64(again - n); diff > float64(n)*0.06 || -diff > float64(n)*0.06 {
			t.Fatalf("FormatSize(%d) = %q, which reads as %d", n, banger.FormatSize(n), again)
		}
	})
}

func TestErrorOnTheWire(t *testing.T) {
	cause := &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: "debain", Hint: "did you mean debian-bookworm?"}
	err := &banger.Error{Op: "create vm", Subject: "devbox", OpID: "op-1", Err: cause}
	if !errors.Is(err, banger.ErrNotFound) {
		t.Fatal("the kind of the cause is lost")
	}
	back := banger.EncodeError(err, "").Decode()
	if !errors.Is(back, banger.ErrNotFound) || back.Error() != err.Error() || banger.HintOf(back) != cause.Hint {
		t.Errorf("Decode() = %v (hint %q), want %v (hint %q)", back, banger.HintOf(back), err, cause.Hint)
	}
	if plain := banger.EncodeError(errors.New("x"), "op-2").Decode(); banger.KindName(plain) != "internal" {
		t.Errorf("a plain error decodes as %s, want internal", banger.KindName(plain))
	}
}

func TestExitStatus(t *testing.T) {
	for _, tc := range []struct {
		result banger.ExecResult
		want   int
	}{
		{banger.ExecResult{}, 0},
		{banger.ExecResult{Status: 42}, 42},
		{banger.ExecResult{Signal: "KILL"}, 137},
		{banger.ExecResult{Signal: "unheard"}, 128},
		{banger.ExecResult{Error: "no such file", Errno: 2}, 127},
		{banger.ExecResult{Error: "permission denied", Errno: 13}, 126},
	} {
		if got := tc.result.ExitStatus(); got != tc.want {
			t.Errorf("%+v.ExitStatus() = %d, want %d", tc.result, got, tc.want)
		}
	}
}
