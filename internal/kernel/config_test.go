package kernel

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"banger"
)

func TestParseConfig(t *testing.T) {
	text := "#\n# Linux/x86 6.1.0 Kernel Configuration\n#\nCONFIG_A=y\r\nCONFIG_B_2=m\n# CONFIG_C is not set\nCONFIG_D=\"y\"\nCONFIG_E=123\nCONFIG_F=yes\nCONFIG_=y\nG=y\n CONFIG_H=y\nCONFIG_I=n"
	if got, want := parseConfig([]byte(text)), (buildConfig{"A": 'y', "B_2": 'm'}); !maps.Equal(got, want) {
		t.Errorf("parseConfig = %v, want %v", got, want)
	}
	for _, text := range []string{"", "text", "# CONFIG_A is not set\n"} {
		if got := parseConfig([]byte(text)); got != nil {
			t.Errorf("parseConfig(%q) = %v, want none", text, got)
		}
	}
}

// FuzzParseConfig writes what was read and reads that again.
func FuzzParseConfig(f *testing.F) {
	f.Add("CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"x=y\"\n")
	f.Add("CONFIG_A=y\r\nCONFIG_A=m")
	f.Fuzz(func(t *testing.T, text string) {
		got := parseConfig([]byte(text))
		var again strings.Builder
		for _, option := range slices.Sorted(maps.Keys(got)) {
			fmt.Fprintf(&again, "CONFIG_%s=%c\n", option, got[option])
		}
		if second := parseConfig([]byte(again.String())); !maps.Equal(second, got) {
			t.Fatalf("parseConfig(%q) = %v, and of its own text %v", text, got, second)
		}
	})
}

func TestReadConfig(t *testing.T) {
	config := []byte("CONFIG_A=y\n")
	for _, tc := range []struct {
		what string
		file []byte
		ok   bool
	}{
		{"text", config, true}, {"gzip", gzipped(t, config), true}, {"gzip that is cut", gzipped(t, config)[:15], false}, {"no gzip", []byte{0x1f, 0x8b, 1}, false},
		{"too long", bytes.Repeat(config, maxConfig/len(config)+1), false}, {"a gzip bomb", gzipped(t, bytes.Repeat(config, 8*maxConfig/len(config))), false}, {"empty", nil, false},
	} {
		if got := readConfig(bytes.NewReader(tc.file)); (got != nil) != tc.ok {
			t.Errorf("%s: readConfig = %d options, want some: %v", tc.what, len(got), tc.ok)
		}
	}
}

func TestEmbedded(t *testing.T) {
	config := append([]byte(embeddedConfigStart), gzipped(t, []byte("CONFIG_A=y\n"))...)
	banner := []byte("Linux version 6.1.0-test (me) #1")
	for _, at := range []int{0, 1, scanChunk - 20, scanChunk - 3, scanChunk, 3*scanChunk - 7, 3*scanChunk - 21, 5 * scanChunk} {
		for _, decoys := range []string{"", "IKCFG_STx Linux version %s ", "Linux version x\x00"} {
			for what, mark := range map[string][]byte{"config": config, "banner": banner} {
				file := append(append(append([]byte(decoys), make([]byte, at)...), mark...), make([]byte, 100)...)
				r, size := bytes.NewReader(file), int64(len(file))
				if got := embeddedConfig(r, size)["A"] == 'y'; got != (what == "config") {
					t.Errorf("%s at %d behind %q: embedded configuration found: %v", what, at, decoys, got)
				}
				if got := bannerRelease(r, size) == "6.1.0-test"; got != (what == "banner") {
					t.Errorf("%s at %d behind %q: release found: %v", what, at, decoys, got)
				}
			}
		}
	}
}

// FuzzEmbedded puts any bytes before a configuration and a banner: they are found, and nothing is found that is not well formed.
func FuzzEmbedded(f *testing.F) {
	f.Add([]byte("IKCFG_ST\x1f\x8b"), []byte("Linux version 5"))
	f.Add([]byte{}, vmlinuxOf(f, "6.1.0-test", "CONFIG_A=y\n"))
	f.Add([]byte{}, imageOf(f, "6.1.0-test", "CONFIG_A=y\n"))
	packed := gzipped(f, []byte("CONFIG_LAST=y\n"))
	f.Fuzz(func(t *testing.T, before, image []byte) {
		if release := imageRelease(bytes.NewReader(image), int64(len(image))); release != "" && !versionPattern.MatchString(release) {
			t.Fatalf("release %q", release)
		}
		file := slices.Concat(before, []byte("\x00"+embeddedConfigStart), packed, []byte("IKCFG_ED\x00Linux version 1.2 x"))
		r, size := bytes.NewReader(file), int64(len(file))
		if embeddedConfig(r, size) == nil {
			t.Fatal("the configuration is not found")
		}
		if release := bannerRelease(r, size); !versionPattern.MatchString(release) {
			t.Fatalf("release %q", release)
		}
	})
}

func TestKernelName(t *testing.T) {
	for name, want := range map[string]string{"vmlinuz": "", "vmlinux": "", "bzImage": "", "vmlinuz-6.1.0-42-amd64": "6.1.0-42-amd64", "vmlinux-6.1": "6.1", "kernel-6.1.12-gentoo": "6.1.12-gentoo", "vmlinuz-linux": "", "vmlinuz-linux-lts": "", "vmlinuz-virt": ""} {
		if got, ok := kernelName(name); got != want || !ok {
			t.Errorf("kernelName(%q) = %q, %v, want %q", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "vmlinuz.old", "vmlinuz-6.1.old", "vmlinuz-0-rescue-0123", "vmlinux.o", "vmlinux-gdb.py", "vmlinux-6.4.0-default.xz", "vmlinuz-6.1.dpkg-new", "vmlinux.symvers", "System.map",
		"config-6.1", ".vmlinuz-6.1.hmac", "Image", "vmlinuz-6.1\n"} {
		if got, ok := kernelName(name); ok {
			t.Errorf("kernelName(%q) = %q, want none", name, got)
		}
	}
}

func TestInspect(t *testing.T) {
	with := func(builtIn string) *catalog {
		c, err := newCatalog([]*module{parse(t, "kernel/overlay.ko", []string{"license=GPL"})}, nil, []byte(builtIn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	unlisted, err := newCatalog(nil, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what    string
		catalog *catalog
		config  buildConfig
		feature string
		want    banger.FeatureState
	}{
		{"module, whatever the configuration says", with(""), buildConfig{"OVERLAY_FS": 'y'}, "overlay", banger.FeatureModule},
		{"listed", with("kernel/fs/fuse/fuse.ko\n"), nil, "fuse", banger.FeatureBuiltIn},
		{"not listed", with("kernel/x.ko\n"), nil, "fuse", banger.FeatureMissing},
		{"an empty list", with(""), nil, "fuse", banger.FeatureMissing},
		{"configured", unlisted, buildConfig{"FUSE_FS": 'y'}, "fuse", banger.FeatureBuiltIn},
		{"a module that is not there", unlisted, buildConfig{"FUSE_FS": 'm'}, "fuse", banger.FeatureMissing},
		{"not configured", unlisted, buildConfig{"X": 'y'}, "fuse", banger.FeatureMissing},
		{"by its new name", unlisted, buildConfig{"IP_NF_IPTABLES_LEGACY": 'y'}, "iptables", banger.FeatureBuiltIn},
		{"nothing tells", unlisted, nil, "fuse", banger.FeatureUnknown},
		{"no list tells of what is no module", with("kernel/x.ko\n"), nil, "acpi", banger.FeatureUnknown},
	} {
		for _, f := range features {
			if f.name != tc.feature {
				continue
			}
			if got := tc.catalog.state(f, tc.catalog.lookup(nil), tc.config); got != tc.want {
				t.Errorf("%s: %s is %s, want %s", tc.what, tc.feature, got, tc.want)
			}
		}
	}
}

// TestRequiredModules holds the table of features against what an initrd insists on.
func TestRequiredModules(t *testing.T) {
	c, err := newCatalog(nil, nil, []byte(""), nil)
	if err != nil {
		t.Fatal(err)
	}
	var found []banger.KernelFeature
	for _, f := range features {
		if f.required {
			found = append(found, banger.KernelFeature{Name: f.name, State: banger.FeatureUnknown})
		}
	}
	if order, err := c.bootModules(found); err != nil || len(order) > 0 {
		t.Errorf("with all that the table requires built in: %q, %v", order, err)
	}
}

// TestDocumentedFeatures wants every feature with its options in docs/kernels.md.
func TestDocumentedFeatures(t *testing.T) {
	text, err := os.ReadFile("../../docs/kernels.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range features {
		for _, word := range append([]string{f.name}, f.options...) {
			if !bytes.Contains(text, []byte(word)) {
				t.Errorf("docs/kernels.md has no %s", word)
			}
		}
	}
}
