package cli

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/fence"
	"banger/internal/statedir"
)

// undoSSHConfig is the command that takes our lines out of the user's file.
const undoSSHConfig = "banger ssh-config --uninstall"

func (a *app) sshConfig() *cobra.Command {
	var install, uninstall, printPath bool
	cmd := &cobra.Command{
		Use: "ssh-config [flags]", Short: "let ssh, scp, rsync, git and editors find VMs by name", Args: noArgs,
		Long: `banger keeps a file for OpenSSH that knows every VM as NAME.vm, with its own keys. Alone this command tells where, and whether
~/.ssh/config includes it. --install puts one Include, between two marker lines, at the beginning of ~/.ssh/config; --uninstall takes
it out again and leaves every other byte as it was.`,
		Example: "  banger ssh-config --install\n  ssh devbox.vm\n  scp notes.txt devbox.vm:\n  git clone devbox.vm:repo\n  banger ssh-config --uninstall",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if install && uninstall || printPath && (install || uninstall) {
				return inputError(cmd, "--install, --uninstall and --print-path exclude each other")
			}
			dir, err := statedir.Locate()
			if err != nil {
				return err
			}
			c, err := a.dial(cmd.Context()) // the daemon keeps the file
			if err != nil {
				return err
			}
			c.Close()
			if printPath {
				_, err := fmt.Fprintln(a.Out, dir.SSHConfig())
				return err
			}
			path, err := userSSHConfig()
			if err != nil {
				return err
			}
			switch {
			case install:
				return a.installSSHConfig(path, dir.SSHConfig())
			case uninstall:
				return a.uninstallSSHConfig(path)
			}
			return a.showSSHConfig(path, dir.SSHConfig())
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&install, "install", false, "include banger's file in ~/.ssh/config")
	flags.BoolVar(&uninstall, "uninstall", false, "include it no more")
	flags.BoolVar(&printPath, "print-path", false, "print the path of banger's file and nothing else")
	return cmd
}

// userSSHConfig is the file that ssh reads. ssh goes by the user's home of the system's records, whatever $HOME says.
func userSSHConfig() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", &banger.Error{Kind: banger.ErrUnavailable, Op: "find your home", Err: err}
	}
	return filepath.Join(u.HomeDir, ".ssh", "config"), nil
}

// includeLine names our file in the words of ssh_config(5).
func includeLine(path string) (string, error) {
	if strings.ContainsAny(path, "\"\n\\*?[%$") {
		return "", banger.Invalidf("the path %q can't stand in an ssh configuration: choose another BANGER_STATE_DIR", path)
	}
	return `Include "` + strings.ReplaceAll(path, "%", "%%") + `"`, nil
}

func (a *app) installSSHConfig(path, own string) error {
	line, err := includeLine(own)
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !os.IsExist(err) {
		return &banger.Error{Kind: banger.ErrRefused, Op: "make", Subject: filepath.Dir(path), Err: err}
	}
	changed, err := fence.Edit(path, 0o600, func(text string) (string, error) { return fence.Put(text, undoSSHConfig, line+"\n") })
	if err != nil {
		return &banger.Error{Err: err, Hint: "put this line at its beginning yourself: " + line}
	}
	if !changed {
		a.notice("%s includes it already", path)
		return nil
	}
	a.notice("%s includes %s\nnow: ssh NAME.vm; undo: %s", path, own, undoSSHConfig)
	return nil
}

func (a *app) uninstallSSHConfig(path string) error {
	changed, err := fence.Edit(path, 0o600, fence.Remove)
	if err != nil {
		return &banger.Error{Err: err, Hint: "remove banger's lines yourself"}
	}
	if !changed {
		a.notice("%s has no lines of banger's", path)
	}
	return nil
}

// sshConfigState is what OpenSSH's programs know of the VMs.
type sshConfigState struct {
	Path       string `json:"path"`        // banger's own file
	Include    string `json:"include"`     // line that makes OpenSSH read it
	UserConfig string `json:"user_config"` // the user's file
	Installed  bool   `json:"installed"`   // the line is in it
}

func (a *app) showSSHConfig(path, own string) error {
	line, err := includeLine(own)
	if err != nil {
		return err
	}
	_, installed, err := readSSHConfig(path, line)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(sshConfigState{own, line, path, installed})
	}
	state := "no: banger ssh-config --install"
	if installed {
		state = "yes"
	}
	return table(a.Out, [][]string{{"file", own}, {"line", line}, {"in " + path, state}})
}

// readSSHConfig reads the user's file, through a symbolic link too, and tells whether it has the line.
func readSSHConfig(path, line string) (text string, included bool, err error) {
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return "", false, &banger.Error{Kind: banger.ErrUnavailable, Op: "read", Subject: path, Err: err}
	}
	for l := range strings.Lines(string(b)) {
		included = included || strings.TrimSpace(l) == line
	}
	return string(b), included, nil
}
