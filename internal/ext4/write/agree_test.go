package write_test

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"banger/internal/testenv"
	"banger/internal/tree"
)

var (
	ofTheMoment = []string{"Filesystem created", "Last write time", "Last checked", "Checksum", "Lifetime writes", "Overhead clusters"}
	sums        = regexp.MustCompile(`,? csum 0x[0-9a-f]+`)
)

// What dumpe2fs tells of our file systems is what it tells of those of mke2fs with the same features, the places
// of each group's metadata too. Our lost+found is 3 blocks smaller.
func TestHeaderIsThatOfMke2fs(t *testing.T) {
	for _, size := range []int64{64 << 20, 100 << 20, 136 << 20, 300 << 20, 1 << 30, 8 << 30, 64 << 30} {
		image, _ := create(t, options(size), tree.Of())
		ours := header(t, image)
		other := testenv.Mke2fs(t, size, "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-O", "none,"+strings.ReplaceAll(features, " ", ","), "-m", "0", "-L", "test",
			"-J", "size="+strings.TrimSuffix(ours["Total journal size"], "M"), "-U", "b0010203-0405-0607-0809-0a0b0c0d0e0f", "-E", "hash_seed=09080700-0000-0000-0000-000000000000")
		theirs := header(t, other)
		free, err := strconv.Atoi(theirs["Free blocks"])
		if err != nil {
			t.Fatal(err)
		}
		theirs["Free blocks"] = strconv.Itoa(free + 3)
		for _, name := range slices.Sorted(maps.Keys(theirs)) {
			if ours[name] != theirs[name] && !slices.Contains(ofTheMoment, name) {
				t.Errorf("%d: %s: %q, mke2fs: %q", size, name, ours[name], theirs[name])
			}
		}
		if len(ours) > len(theirs) {
			t.Errorf("%d: fields that mke2fs does not fill: %v", size, ours)
		}
		if size >= 2<<30 { // mke2fs leaves room for 16 groups in the first flex group however few there are
			testenv.SameLines(t, groups(t, image), groups(t, other))
		}
	}
}

// groups is where a file system's groups have their metadata.
func groups(t *testing.T, image string) (list []string) {
	t.Helper()
	_, text, _ := strings.Cut(testenv.Run(t, "dumpe2fs", image), "\nGroup 0:")
	for line := range strings.Lines(text) {
		if strings.Contains(line, " at ") {
			list = append(list, sums.ReplaceAllString(strings.TrimSpace(line), ""))
		}
	}
	slices.Sort(list)
	return list
}
