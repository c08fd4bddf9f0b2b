package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"banger"
	"banger/internal/statedir"
)

// SSHConfig is a Store that keeps the file of [statedir.Dir.SSHConfig] in step with the records: OpenSSH's programs find every VM
// by its name, with its keys, whatever operation made, renamed or deleted it. A file that can't be written spoils no operation.
type SSHConfig struct {
	Store
	Dir     statedir.Dir
	Program string // path of banger
	// User gives whom a VM signs in.
	User func(vm banger.VM) string
	Log  *slog.Logger

	changes atomic.Uint64 // how many there were

	mu     sync.Mutex
	synced uint64 // the changes that the file tells of
	last   string // what the file holds
	hosts  map[banger.VMID]sshHost
}

// sshHost is what the file says of one VM.
type sshHost struct {
	name, user, accel string // what it says that by
	text              string
}

// Update changes a record.
func (s *SSHConfig) Update(ctx context.Context, id banger.VMID, change func(*banger.VM) error) (banger.VM, error) {
	var before banger.VM
	vm, err := s.Store.Update(ctx, id, func(vm *banger.VM) error {
		before = *vm
		return change(vm)
	})
	// With many VMs to look at all of them takes longer than what most operations change.
	if before.State == banger.StateCreating || before.Spec.Name != vm.Spec.Name || before.Spec.User != vm.Spec.User || before.Accel != vm.Accel || before.ImageKey != vm.ImageKey {
		s.Sync(ctx)
	}
	return vm, err
}

// Delete removes a record.
func (s *SSHConfig) Delete(ctx context.Context, id banger.VMID) error {
	err := s.Store.Delete(ctx, id)
	s.Sync(ctx)
	return err
}

// Sync writes the file if something has changed. Those that come at the same time share one look at the records.
func (s *SSHConfig) Sync(ctx context.Context) {
	mine := s.changes.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced >= mine {
		return
	}
	s.synced = s.changes.Load()
	ctx = context.WithoutCancel(ctx) // the record has changed, whoever waits for that
	vms, err := s.List(ctx)
	if err == nil {
		text := s.config(vms)
		if text == s.last {
			return
		}
		if err = replaceFile(s.Dir.SSHConfig(), text); err == nil {
			s.last = text
		}
	}
	if err != nil {
		s.Log.WarnContext(ctx, "write the ssh configuration", "err", err)
	}
}

// replaceFile does not make the file durable: each start of the daemon writes it.
func replaceFile(path, text string) error {
	next := path + ".staging"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

const sshConfigHead = `# Written by banger, whenever a VM comes or goes: changes here are lost.
# ~/.ssh/config includes it after: banger ssh-config --install
`

// What holds for all VMs. The user's own key agent stays out of a guest unless -A lends it; the guest's key is known before the
// first connection, so that nothing is ever taken on trust.
const sshConfigTail = `Host *.vm
    ProxyCommand %s
    User root
    IdentitiesOnly yes
    UserKnownHostsFile none
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    UpdateHostKeys no
    CheckHostIP no
    HostKeyAlgorithms ssh-ed25519
    PreferredAuthentications publickey
    ForwardAgent no
    ForwardX11 no
`

// Ciphers in the order of their speed in a guest.
const (
	ciphersEmulated = "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com"
	ciphersKVM      = "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com"
)

// sshUser matches the users that ssh takes.
var sshUser = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:-]*$`)

// config gives the text for VMs that have their keys already. With many VMs it is what most of their creations would spend their time
// with: only what has changed of a VM is written anew, and an image is asked once for its user.
func (s *SSHConfig) config(vms []banger.VM) string {
	type account struct{ image, user string }
	users := map[account]string{}
	hosts := make(map[banger.VMID]sshHost, len(vms))
	var b strings.Builder
	b.Grow(len(s.last) + 1<<10)
	b.WriteString(sshConfigHead)
	for _, vm := range vms {
		asked := account{vm.ImageKey, vm.Spec.User}
		user, known := users[asked]
		if !known {
			user = s.User(vm)
			users[asked] = user
		}
		host := s.hosts[vm.ID]
		if host.name != vm.Spec.Name || host.user != user || host.accel != vm.Accel {
			home := s.Dir.VM(vm.ID)
			if _, err := os.Stat(home.KnownHosts()); err != nil || banger.ValidateVMName(vm.Spec.Name) != nil {
				continue
			}
			host = sshHost{vm.Spec.Name, user, vm.Accel, hostText(home, vm, user)}
		}
		hosts[vm.ID] = host
		b.WriteString(host.text)
	}
	s.hosts = hosts
	proxy := fmt.Sprintf("env BANGER_STATE_DIR=%s %s ssh-proxy %%h", shellQuote(s.Dir.Root), shellQuote(s.Program))
	fmt.Fprintf(&b, sshConfigTail, proxy)
	return b.String()
}

func hostText(home statedir.VMDir, vm banger.VM, user string) string {
	var b strings.Builder
	ciphers := ciphersKVM
	if vm.Accel == "tcg" {
		ciphers = ciphersEmulated
	}
	fmt.Fprintf(&b, "Host %s.vm\n", vm.Spec.Name)
	if sshUser.MatchString(user) {
		fmt.Fprintf(&b, "    User %s\n", user)
	}
	fmt.Fprintf(&b, "    HostKeyAlias %s\n    UserKnownHostsFile %s\n    IdentityFile %s\n    Ciphers %s\n",
		vm.ID, sshPath(home.KnownHosts()), sshPath(home.UserKey()), ciphers)
	return b.String()
}

// sshPath writes a path as an argument of ssh_config(5), where % begins a token.
func sshPath(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(path) + `"`
}

// shellQuote writes a word of a ProxyCommand: for the user's shell, and % begins a token here too.
func shellQuote(word string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "%", "%%").Replace(word) + "'"
}

// User gives whom commands in a VM run as: what its maker said, else what its image says; "" is root.
func (m *Manager) User(vm banger.VM) string {
	image, err := m.Images.Get(vm.ImageKey)
	if err != nil {
		return vm.Spec.User
	}
	return userOf(image, vm.Spec.User)
}
