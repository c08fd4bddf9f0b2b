package bare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/channel"
	"banger/internal/machine"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

// roleEnv makes a benchmark's program play its other role.
const roleEnv = "BANGER_BENCH_BARE"

// Main runs a package's benchmarks, or plays the other role of their program: as the ordinary user it boots the machine whose configuration
// is on standard input, and writes the time until the guest's agent has answered to standard output.
func Main(m *testing.M) {
	if os.Getenv(roleEnv) == "" {
		testenv.Main(m)
		return
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func play() error {
	var cfg machine.Config
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		return err
	}
	guest, err := Boot(cfg, channel.Network{}, nil)
	if err != nil {
		return err
	}
	if err := guest.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(guest.Took)
}

// Machines boot as a world's do, with nothing but QEMU.
type Machines struct {
	b   *testing.B
	w   *testenv.World
	cfg machine.Config
}

// NewMachines runs one VM of the world, with flags of vm run, whose configuration is that of all.
func NewMachines(b *testing.B, w *testenv.World, flags ...string) *Machines {
	m := &Machines{b: b, w: w}
	w.Must(append(append([]string{"vm", "run", "--name", "template"}, flags...), "--", "true")...)
	w.Must("vm", "stop", "template")
	text, err := os.ReadFile(m.dir("template").MachineConfig())
	if err == nil {
		err = json.Unmarshal(text, &m.cfg)
	}
	if err != nil {
		b.Fatal(err)
	}
	testenv.CopySelf(b, m.program())
	return m
}

func (m *Machines) program() string { return filepath.Join(m.w.State, "bare") }

func (m *Machines) dir(name string) statedir.VMDir {
	var vm struct {
		Dir string `json:"dir"`
	}
	m.w.JSON(&vm, "vm", "show", name)
	return statedir.VMDir{Path: vm.Dir}
}

// Run boots the drives of a new VM, which never ran, and gives the time until its agent has answered.
func (m *Machines) Run() (took time.Duration, err error) {
	m.w.Must("vm", "create", "--name", "bare")
	defer m.w.Must("vm", "delete", "--force", "bare")
	dir, cfg := m.dir("bare"), m.cfg
	cfg.Dir, cfg.Disk = dir.Path, dir.Disk()
	input, err := json.Marshal(cfg)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(m.program())
	cmd.Env = append(os.Environ(), roleEnv+"=1")
	cmd.Stdin = bytes.NewReader(input)
	cmd.Dir = m.w.State
	m.w.User.As(cmd)
	r := testenv.Capture(m.b, cmd)
	if err := json.Unmarshal([]byte(r.Stdout), &took); err != nil || r.Status != 0 {
		return 0, fmt.Errorf("boot QEMU alone: status %d, %v\n%s", r.Status, err, r.Stderr)
	}
	return took, nil
}
