package cli

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/config"
	"banger/internal/fence"
	"banger/internal/hostcheck"
	"banger/internal/proc"
	"banger/internal/resolver"
	"banger/internal/testenv"
)

func wantCheck(t *testing.T, what string, got hostcheck.Check, status hostcheck.Status, details, hint string) {
	t.Helper()
	if got.Status != status || !strings.Contains(got.Details, details) || !strings.Contains(got.Hint, hint) || hint == "" && got.Hint != "" {
		t.Errorf("%s: %+v, want %s with %q and the hint %q", what, got, status, details, hint)
	}
}

func TestNamesCheck(t *testing.T) {
	usual, other := netip.MustParseAddrPort("127.0.0.1:42069"), netip.MustParseAddrPort("127.0.0.1:40001")
	devbox := resolver.Host{Name: "devbox", Address: netip.MustParseAddr("127.88.1.2")}
	later := resolver.Host{Name: "later", Address: netip.MustParseAddr("127.88.1.3")}
	one := []resolver.Host{devbox}
	answers := func(text string, err error) func(context.Context, string) ([]string, error) {
		return func(_ context.Context, name string) ([]string, error) {
			if name != "devbox.vm" {
				return nil, errors.New(name + " was asked for")
			}
			return strings.Fields(text), err
		}
	}
	missing := &banger.Error{Kind: banger.ErrUnavailable, Op: "find program", Subject: "getent", Hint: "install it"}
	for _, tc := range []struct {
		what      string
		installed resolver.Method
		at        netip.AddrPort // what is installed
		server    netip.AddrPort
		running   []resolver.Host
		getent    func(context.Context, string) ([]string, error)
		status    hostcheck.Status
		details   string
		hint      string
	}{
		{"not set up", "", usual, usual, one, nil, hostcheck.Pass, "do not ask yet", "banger dns setup --install"},
		{"not set up, port taken", "", usual, other, one, nil, hostcheck.Warn, "42069 was taken by thief (process 7)", "banger daemon stop"},
		{"another port", resolver.Resolved, usual, other, one, nil, hostcheck.Warn, "banger.conf leads elsewhere", "banger dns setup --install"},
		{"an old port", resolver.Dnsmasq, other, usual, one, nil, hostcheck.Warn, "does not lead to 127.0.0.1:42069", "banger dns setup --install"},
		{"another port, as set up", resolver.Resolved, other, other, one, answers("127.88.1.2", nil), hostcheck.Pass, "devbox.vm resolves", ""},
		{"nothing runs", resolver.Resolved, usual, usual, nil, nil, hostcheck.Pass, "it shows when a VM runs", ""},
		{"works", resolver.Resolved, usual, usual, one, answers("127.88.1.2", nil), hostcheck.Pass, "devbox.vm resolves to 127.88.1.2 by systemd-resolved", ""},
		{"works by hosts", resolver.Hosts, usual, usual, one, answers("::1 127.88.1.2", nil), hostcheck.Pass, "by hosts", ""},
		{"no answer", resolver.Resolved, usual, usual, one, answers("", errors.New("exit status 2")), hostcheck.Fail, "exit status 2", "systemctl restart systemd-resolved"},
		{"an old address", resolver.Hosts, usual, usual, one, answers("127.88.9.9", nil), hostcheck.Fail, "127.88.9.9, want 127.88.1.2", "banger dns setup --install"},
		{"one that is in /etc/hosts", resolver.Hosts, usual, usual, []resolver.Host{later, devbox}, answers("127.88.1.2", nil), hostcheck.Pass, "devbox.vm resolves", ""},
		{"none that is in /etc/hosts", resolver.Hosts, usual, usual, []resolver.Host{later}, answers("", errors.New("it took 10 s")), hostcheck.Pass, "no name to try", "banger dns setup --install"},
		{"no getent", resolver.Resolved, usual, usual, one, answers("", missing), hostcheck.Warn, "getent", "install it"},
	} {
		root := t.TempDir()
		if tc.installed != "" {
			plan, err := resolver.For(tc.installed, tc.at, []resolver.Host{devbox})
			if err == nil {
				err = errors.Join(os.MkdirAll(filepath.Join(root, "etc"), 0o755), plan.Install(t.Context(), root, func(context.Context, ...string) error { return nil }))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		names := hostNames{root: root, server: tc.server, getent: tc.getent, owner: func(netip.Addr, uint16) string { return "thief (process 7)" }}
		names.hosts = tc.running
		wantCheck(t, tc.what, names.check(t.Context()), tc.status, tc.details, tc.hint)
	}
}

const getentRole = "BANGER_TEST_GETENT"

// A name in /etc/hosts is found at once, also when the resolver says nothing.
func TestGetentBesideASilentResolver(t *testing.T) {
	if name := os.Getenv(getentRole); name != "" {
		ctx, cancel := context.WithTimeout(t.Context(), resolveTimeout)
		defer cancel()
		if addresses, err := getent(ctx, name); err != nil || strings.Join(addresses, " ") != "127.88.1.2" {
			t.Errorf("getent(%s) = %q, %v", name, addresses, err)
		}
		return
	}
	for _, tool := range []string{"unshare", "ip", "getent"} {
		testenv.RequireTool(t, tool)
	}
	if err := exec.Command("unshare", "--mount", "--net", "true").Run(); err != nil {
		testenv.Skip(t, "root")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"hosts": "127.88.1.2\tdevbox.vm\n", "resolv.conf": "nameserver 192.0.2.9\n", "nsswitch.conf": "hosts: files dns\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const script = `for file in hosts resolv.conf nsswitch.conf; do mount --bind "$0/$file" /etc/$file || exit 77; done
ip link set lo up && ip link add d0 type veth peer name d1 && ip addr add 192.0.2.2/24 dev d0 && ip link set d0 up && ip link set d1 up &&
ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:01 dev d0 || exit 77
exec "$1" -test.run='^TestGetentBesideASilentResolver$'`
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(getentRole, "devbox.vm")
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-c", script, dir, self)
	switch out, err := cmd.CombinedOutput(); {
	case err != nil && (cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 77):
		testenv.Skip(t, "mounts and veth: "+string(out))
	case err != nil:
		t.Errorf("%v: %s", err, out)
	}
}

// What keeps bangerd from looking is told in its own words, with its own next step.
func TestDoctorThatCannotLook(t *testing.T) {
	for _, tc := range []struct {
		what, script string
		status       int
		want         string
	}{
		{"it tells why", `echo '{"kind":"refused","message":"not as root","hint":"as a user"}'; exit 1`, 6, "banger: not as root\nhint: as a user\n"},
		{"it does not know --doctor", "echo flag provided but not defined >&2; exit 2", 5, "not defined\nhint: bangerd belongs beside banger"},
		{"no report", "echo ok", 5, "hint: bangerd belongs beside banger"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "bangerd"), []byte("#!/bin/sh\n"+tc.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		if status, stdout, stderr := run(t, "doctor"); status != tc.status || stdout != "" || !strings.Contains(stderr, tc.want) {
			t.Errorf("%s: status %d, %q, %q, want %d with %q", tc.what, status, stdout, stderr, tc.status, tc.want)
		}
	}
}

// OpenSSH's own client judges.
func TestSSHCheck(t *testing.T) {
	testenv.RequireTool(t, "ssh")
	const own = "Host devbox.vm\n    User dev\nHost *.vm\n    ProxyCommand banger ssh-proxy %h\n"
	for _, tc := range []struct {
		what    string
		plant   func(s *hostSSH) error
		status  hostcheck.Status
		details string
		hint    string
	}{
		{"installed", func(*hostSSH) error { return nil }, hostcheck.Pass, "works", ""},
		{"installed, no VM", func(s *hostSSH) error { s.vms = nil; return nil }, hostcheck.Pass, "0 VMs", ""},
		{"no file", func(s *hostSSH) error { return os.Remove(s.path) }, hostcheck.Pass, "not known", "banger ssh-config --install"},
		{"another directory's", func(s *hostSSH) error { s.own += "2"; return nil }, hostcheck.Warn, "another state directory", "banger ssh-config --install"},
		{"banger's file is gone", func(s *hostSSH) error { return os.Remove(s.own) }, hostcheck.Fail, "no such file", "banger daemon stop"},
		{"banger's file is old", func(s *hostSSH) error { s.vms = []string{"devbox", "new"}; return nil }, hostcheck.Fail, "does not know new.vm", "banger daemon stop"},
		{"below another host", func(s *hostSSH) error { return prepend(s.path, "Host elsewhere\n  User me\n") }, hostcheck.Fail, "other settings", "ssh-config --install"},
		{"spoiled", func(s *hostSSH) error { return prepend(s.path, "Nonsense yes\n") }, hostcheck.Fail, "exit status 255", "repair"},
		{"damaged markers", func(s *hostSSH) error {
			text, err := os.ReadFile(s.path)
			return errors.Join(err, os.WriteFile(s.path, text[:bytes.IndexByte(text, '\n')+1], 0o600))
		}, hostcheck.Warn, "without its last", `Include "`},
		{"a link without the line", func(s *hostSSH) error {
			return errors.Join(os.WriteFile(s.own+".dotfiles", nil, 0o600), os.Remove(s.path), os.Symlink(s.own+".dotfiles", s.path))
		}, hostcheck.Warn, "symbolic link", `Include "`},
		{"a link with the line", func(s *hostSSH) error {
			return errors.Join(os.Rename(s.path, s.own+".dotfiles"), os.Symlink(s.own+".dotfiles", s.path))
		}, hostcheck.Pass, "works", ""},
		{"a directory", func(s *hostSSH) error { return errors.Join(os.Remove(s.path), os.Mkdir(s.path, 0o700)) }, hostcheck.Fail, "directory", "chmod"},
		{"no ssh", func(s *hostSSH) error {
			s.settings = func(context.Context, string) (string, error) {
				return "", &banger.Error{Kind: banger.ErrUnavailable, Op: "find program", Subject: "ssh", Hint: "install it"}
			}
			return nil
		}, hostcheck.Fail, "ssh", "install it"},
	} {
		dir := t.TempDir()
		s := hostSSH{path: filepath.Join(dir, "config"), own: filepath.Join(dir, "ssh_config"), vms: []string{"devbox"}}
		s.settings = func(ctx context.Context, host string) (string, error) {
			var out bytes.Buffer
			err := proc.Run(ctx, proc.Command{Path: "ssh", Args: []string{"-F", s.path, "-G", host}, Stdout: &out})
			return out.String(), err
		}
		line, err := includeLine(s.own)
		if err == nil {
			_, err = fence.Edit(s.path, 0o600, func(text string) (string, error) { return fence.Put(text, undoSSHConfig, line+"\n") })
		}
		if err == nil {
			err = os.WriteFile(s.own, []byte("# head\n"+own), 0o600)
		}
		if err == nil {
			err = tc.plant(&s)
		}
		if err != nil {
			t.Fatal(err)
		}
		wantCheck(t, tc.what, s.check(t.Context()), tc.status, tc.details, tc.hint)
	}
}

func prepend(path, text string) error {
	old, err := os.ReadFile(path)
	return errors.Join(err, os.WriteFile(path, []byte(text+string(old)), 0o600))
}

func TestConfigCheck(t *testing.T) {
	t.Setenv("BANGER_STATE_DIR", t.TempDir()+"/s")
	path := filepath.Join(t.TempDir(), "config.toml")
	t.Setenv("BANGER_CONFIG", path)
	for _, tc := range []struct {
		text, details, hint string
		status              hostcheck.Status
	}{
		{"[vm_defaults]\nvcpu = 2\n", "in order", "", hostcheck.Pass},
		{"[vm_defaults]\nvcpus = 2\n", "vcpus", "vcpu", hostcheck.Fail},
	} {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		wantCheck(t, tc.text, (&app{}).configCheck(t.Context()), tc.status, tc.details, tc.hint)
	}
	got := sizesOf([]banger.Setting{{Key: "vm_defaults.vcpu", Value: "2", From: path}, {Key: "vm_defaults.memory", Value: "3 GiB", From: config.FromHost},
		{Key: "vm_defaults.disk_size", Value: "8 GiB", From: config.BuiltIn}})
	if want := "vcpu 2 (" + path + "), memory 3 GiB (this computer), disk_size 8 GiB (built in)"; got != want {
		t.Errorf("sizes: %s, want %s", got, want)
	}
}

// Only what is banger's own is repaired, and where nobody can be asked nobody is.
func TestRepairable(t *testing.T) {
	report := hostcheck.Report{
		{Name: "processes", Status: hostcheck.Fail, Hint: "banger doctor --fix"},
		{Name: "daemon", Status: hostcheck.Warn, Hint: "banger daemon stop"},
		{Name: "names", Status: hostcheck.Pass, Hint: "banger dns setup --install"},
		{Name: "ssh", Status: hostcheck.Warn, Hint: "banger ssh-config --install"},
		{Name: "qemu", Status: hostcheck.Fail, Hint: "install it: sudo apt-get install qemu-system-x86"},
	}
	list := repairable(report)
	if len(list) != 2 || list[0].Name != "processes" || list[1].Name != "daemon" {
		t.Errorf("repairable: %+v", list)
	}
	var errs bytes.Buffer
	a := &app{Streams: Streams{In: strings.NewReader("n\n"), Err: &errs}}
	if yes, err := a.mayRepair(t.Context(), list); !yes || err != nil || errs.Len() > 0 {
		t.Errorf("without a terminal: %v, %v, %q", yes, err, &errs)
	}
}
