package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"banger/api"
	"banger/client"
)

// plan is what this program does in its other role: as the ordinary user, whom the daemon serves.
type plan struct {
	Root   string `json:"root"`
	Daemon string `json:"daemon"`
	Steps  []step `json:"steps"`
}

// step is one request, or as many at once as it has names.
type step struct {
	Verb  string   `json:"verb"` // "connect", which starts the daemon, "create", "start", "stop", "delete" or "list"
	Names []string `json:"names,omitempty"`
}

// playClient does the plan that is on standard input and writes the time that each step took.
func playClient() error {
	var p plan
	if err := json.NewDecoder(os.Stdin).Decode(&p); err != nil {
		return err
	}
	cfg := client.Config{StateDir: p.Root, Daemon: p.Daemon}
	var c *client.Client
	var took []time.Duration
	for _, s := range p.Steps {
		begun := time.Now()
		if s.Verb == "connect" {
			var err error
			if c, err = client.Dial(context.Background(), cfg); err != nil {
				return err
			}
			defer c.Close()
		} else if err := s.do(c); err != nil {
			return fmt.Errorf("%s %v: %w", s.Verb, s.Names, err)
		}
		took = append(took, time.Since(begun))
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}

func (s step) do(c *client.Client) error {
	ctx := context.Background()
	if s.Verb == "list" {
		_, err := c.ListVMs(ctx)
		return err
	}
	failed := make(chan error, len(s.Names))
	var group sync.WaitGroup
	for _, name := range s.Names {
		group.Go(func() {
			var err error
			switch s.Verb {
			case "create":
				_, err = c.CreateVM(ctx, api.CreateRequest{Name: name}, nil)
			case "start":
				_, err = c.StartVM(ctx, name, api.StartRequest{}, nil)
			case "stop":
				_, err = c.StopVM(ctx, name, 0, nil)
			case "delete":
				_, err = c.DeleteVM(ctx, name, true, nil)
			default:
				err = fmt.Errorf("no verb %q", s.Verb)
			}
			failed <- err
		})
	}
	group.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}
