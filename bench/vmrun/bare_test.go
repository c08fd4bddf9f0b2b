package vmrun

import (
	"encoding/json"
	"os"

	"banger/bench/bare"
	"banger/internal/channel"
	"banger/internal/machine"
)

// playBare is this program in its other role, as the ordinary user: the configuration is on standard input, the time until the guest's
// agent has answered goes to standard output.
func playBare() error {
	var cfg machine.Config
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		return err
	}
	guest, err := bare.Boot(cfg, channel.Network{}, nil)
	if err != nil {
		return err
	}
	if err := guest.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(guest.Took)
}
