package lifecycle

import (
	"errors"
	"fmt"
	"net"

	"banger"
	"banger/internal/listening"
	"banger/internal/machine"
)

// checkPublish finds out before a boot that pinned ports can be had: the supervisor takes them a moment later.
// Errors: ErrConflict that names who has the port; ErrRefused; ErrInvalid.
func checkPublish(list []banger.Publish) error {
	for _, p := range list {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(p.Host))
		if err == nil {
			l.Close()
			continue
		}
		err = machine.ListenError(p.Host, err)
		if owner := listening.Owner(p.Host.Addr(), p.Host.Port()); errors.Is(err, banger.ErrConflict) && owner != "" {
			err = &banger.Error{Kind: banger.ErrConflict, Op: "listen on", Subject: p.Host.String(), Err: errors.New("the port is taken by " + owner),
				Hint: fmt.Sprintf("choose another one: -p ANOTHER:%d", p.Guest)}
		}
		return err
	}
	return nil
}
