// Package doctor looks at everything that banger keeps and needs, and says what is wrong and what to do about it.
//
// It reads files and processes beside the daemon and never needs one: what keeps a daemon from its start is told as well. checks.go
// holds the checks of the state directory, orphans.go those of processes; package hostcheck has those of the host. A check is a
// function that gives rows of the report.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"banger"
	"banger/internal/hostcheck"
	"banger/internal/statedir"
	"banger/internal/store"
)

// Config says where to look.
type Config struct {
	Dir  statedir.Dir
	Host hostcheck.Host
	// Fix ends processes that no VM has, and makes damaged records of processes anew when no daemon runs. What else is banger's own to
	// repair is repaired by each start of the daemon.
	Fix bool
}

// doctor is one look.
type doctor struct {
	Config
	rows    map[banger.VMID]banger.VM // nil when the database can't be read
	erased  map[banger.VMID]bool      // whose directories the next start of the daemon removes
	serving bool                      // a daemon runs: what it is working on is no leftover
}

// Examine makes every check. The order is that of a person who looks for a cause: the host, the directory, what is in it.
func Examine(ctx context.Context, cfg Config) hostcheck.Report {
	d := &doctor{Config: cfg}
	if conn, err := net.Dial("unix", cfg.Dir.DaemonSocket()); err == nil {
		conn.Close()
		d.serving = true
	}
	report := hostcheck.All(ctx, cfg.Host, existing(cfg.Dir.Root))
	report = append(report, d.directory())
	if _, err := os.Stat(cfg.Dir.Root); errors.Is(err, fs.ErrNotExist) {
		return report
	}
	for _, check := range []func(context.Context) []hostcheck.Check{d.database, d.vms, d.strayDirectories, d.images, d.kernels, d.orphans} {
		report = append(report, check(ctx)...)
	}
	return report
}

// existing is the nearest directory above path that is there.
func existing(path string) string {
	for path != "/" {
		if _, err := os.Stat(path); err == nil {
			break
		}
		path = statedir.Parent(path)
	}
	return path
}

// one is a row of the report.
func one(name string, status hostcheck.Status, hint, format string, args ...any) []hostcheck.Check {
	return []hostcheck.Check{{Name: name, Status: status, Details: fmt.Sprintf(format, args...), Hint: hint}}
}

func failed(name string, err error) []hostcheck.Check {
	return one(name, hostcheck.Fail, banger.HintOf(err), "%v", err)
}

func (d *doctor) directory() hostcheck.Check {
	const name = "state directory"
	if _, err := os.Stat(d.Dir.Root); errors.Is(err, fs.ErrNotExist) {
		return one(name, hostcheck.Pass, "", "%s is made by the first command", d.Dir.Root)[0]
	}
	if err := d.Dir.Check(); err != nil {
		return failed(name, err)[0]
	}
	if warning := d.Dir.Warning(); warning != nil {
		return one(name, hostcheck.Warn, banger.HintOf(warning), "%v", warning)[0]
	}
	return one(name, hostcheck.Pass, "", "%s", d.Dir.Root)[0]
}

func (d *doctor) database(ctx context.Context) []hostcheck.Check {
	const name = "database"
	fit, err := store.Check(ctx, d.Dir.Database())
	if err != nil {
		return failed(name, err)
	}
	if fit == store.NeedsMigrate {
		return one(name, hostcheck.Pass, "", "the next start of the daemon makes it or brings it up to date")
	}
	list, erased, err := store.Look(ctx, d.Dir.Database())
	if err != nil {
		return failed(name, err)
	}
	d.erased = erased
	d.rows = map[banger.VMID]banger.VM{}
	for _, vm := range list {
		d.rows[vm.ID] = vm
	}
	return one(name, hostcheck.Pass, "", "records of %d VMs", len(list))
}
