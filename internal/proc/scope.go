package proc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// scopeVariable tells a program that [Start] started which scope to enter.
const scopeVariable = "BANGER_SCOPE"

// scopeTimeout bounds what a slow or dead service manager may cost a start.
const scopeTimeout = time.Second

// enterScope moves this process into a transient scope of the user's service manager, so that the end of a login
// session or of whatever started us does not end it.
func enterScope(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), scopeTimeout)
	defer cancel()
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) { return dialUserBus(ctx) })
	if err != nil {
		return err
	}
	defer conn.Close()
	result := make(chan string, 1)
	properties := []systemd.Property{
		systemd.PropDescription("banger machine"),
		systemd.PropPids(uint32(os.Getpid())),
		{Name: "CollectMode", Value: dbus.MakeVariant("inactive-or-failed")},
	}
	if _, err := conn.StartTransientUnitContext(ctx, name, "fail", properties, result); err != nil {
		return err
	}
	select {
	case state := <-result:
		if state != "done" {
			return errors.New("systemd job " + state)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dialUserBus connects to the bus of this user's session. It never launches one.
func dialUserBus(ctx context.Context) (*dbus.Conn, error) {
	address := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); address == "" && filepath.IsAbs(runtime) {
		address = "unix:path=" + dbus.EscapeBusAddressValue(filepath.Join(runtime, "bus"))
	}
	if address == "" || address == "autolaunch:" {
		return nil, errors.New("no session bus")
	}
	conn, err := dbus.Dial(address, dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(conn.Auth(nil), conn.Hello()); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
