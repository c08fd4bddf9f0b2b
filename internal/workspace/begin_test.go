package workspace

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// forgotten is for a test that goes on with what Send returns.
func forgotten(Record) error { return nil }

// dying lets so many steps of the client pass, its writes on all connections together and its keeping of records; then it is gone.
type dying struct {
	transfer.Conn
	left *int
}

func (d *dying) Write(p []byte) (int, error) {
	if *d.left--; *d.left < 0 {
		d.Conn.Close()
		return 0, net.ErrClosed
	}
	return d.Conn.Write(p)
}

// mortal is a guest whose client dies after so many steps.
func mortal(t *testing.T, steps *int) Guest {
	t.Helper()
	g := running(t, nil)
	serve := func(do func(conn transfer.Conn) error) error {
		if *steps < 0 {
			return net.ErrClosed
		}
		host, agent := testenv.SocketPair(t)
		done := make(chan bool)
		go func() { server.Serve(agent); close(done) }()
		err := do(&dying{host, steps})
		<-done
		return err
	}
	g.Bring = func(ctx context.Context, put transfer.Put, src tree.Source) error {
		return serve(func(conn transfer.Conn) error { _, err := transfer.Bring(ctx, conn, put, src); return err })
	}
	g.Change = func(ctx context.Context, change transfer.Change, steps []transfer.Step, src tree.Source) error {
		return serve(func(conn transfer.Conn) error {
			_, err := transfer.AskChange(ctx, conn, change, steps, src)
			return err
		})
	}
	return g
}

// TestClientDiesOnTheWay ends the client at each of its steps: what is in the guest is known to the host then, and the work that is done
// in it is saved; what is not there, and what nothing has been done to, is no obstacle.
func TestClientDiesOnTheWay(t *testing.T) {
	for _, kind := range []string{"a repository", "a directory"} {
		for _, again := range []bool{false, true} {
			t.Run(kind+map[bool]string{true: ", again"}[again], func(t *testing.T) {
				arrived := 0
				for steps := 0; ; steps++ {
					there, alive := dieAfter(t, kind == "a directory", again, steps)
					if there {
						arrived++
					}
					if alive {
						t.Logf("%d ends; the files were there after %d", steps, arrived)
						break
					}
				}
				if arrived == 0 {
					t.Error("nothing has come")
				}
			})
		}
	}
}

// dieAfter tells whether what was sent is in the guest, and whether the client was still there at the end.
func dieAfter(t *testing.T, directory, again bool, steps int) (there, alive bool) {
	t.Helper()
	host, guest := t.TempDir(), filepath.Join(t.TempDir(), "guest")
	if !directory {
		host = newRepo(t)
	}
	writeFile(t, filepath.Join(host, "a"), "1\n")
	writeFile(t, filepath.Join(host, "edited"), "committed\n")
	if !directory {
		commit(t, host, "c")
	}
	writeFile(t, filepath.Join(host, "edited"), "edited\n")
	makePlan := func() Plan {
		if directory {
			return directoryPlan(t, host)
		}
		return plan(t, host, Options{})
	}
	var record *Record // as a crash leaves it
	begin := func(r Record) error {
		if steps--; steps < 0 {
			return net.ErrClosed
		}
		path := filepath.Join(t.TempDir(), "record")
		if err := r.Write(path); err != nil {
			return err
		}
		r, err := ReadRecord(path)
		record = &r
		return err
	}
	send := func(client Guest, begin func(Record) error) error {
		s, err := makePlan().Prepare(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Send(t.Context(), client, guest, begin, nil)
		return err
	}
	client := mortal(t, &steps)
	var err error
	if again {
		if err := send(bringing(t), func(r Record) error { record = &r; return nil }); err != nil {
			t.Fatal(err)
		}
		err = sendMore(t, host, directory, client, record, begin, makePlan)
	} else {
		err = send(client, begin)
	}
	if alive = steps >= 0; alive && err != nil {
		t.Fatal(err)
	}
	return workIsSaved(t, guest, directory, record), alive
}

// sendMore brings what is new on the host.
func sendMore(t *testing.T, host string, directory bool, client Guest, record *Record, begin func(Record) error, makePlan func() Plan) error {
	t.Helper()
	writeFile(t, filepath.Join(host, "a"), "2\n")
	writeFile(t, filepath.Join(host, "more"), "more\n")
	if !directory {
		commit(t, host, "more")
	}
	u, err := makePlan().Update(t.Context(), bringing(t), *record, false)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := begin(u.Begun()); err != nil {
		return err
	}
	_, err = u.Send(t.Context(), client, nil)
	return err
}

// workIsSaved does work in the guest and has it saved by what the host knows.
func workIsSaved(t *testing.T, guest string, directory bool, record *Record) (there bool) {
	t.Helper()
	_, err := os.Stat(guest)
	if there = err == nil; there && record == nil {
		t.Fatal("it is in the guest, and the host does not know")
	}
	if record == nil {
		return there
	}
	saves := Saves{Dir: t.TempDir()}
	kept, err := saves.Keep(t.Context(), local(nil), keepVM, *record, time.Now())
	if err != nil || !there && len(kept) > 0 {
		t.Fatalf("Keep() before any work = %v, %v", kept, err)
	}
	if !there {
		return there
	}
	if record.Coming == nil && len(kept) > 0 {
		t.Errorf("what came from the host is saved: %v", kept[0].Refs)
	}
	work := "all"
	writeFile(t, filepath.Join(guest, "work"), "work\n")
	if !directory {
		gitIn(t, guest, "add", "work")
		gitIn(t, guest, "commit", "-q", "-m", "work")
		work = "branches/main"
	}
	writeFile(t, filepath.Join(guest, "a"), "guest\n")
	if kept, err = saves.Keep(t.Context(), local(nil), keepVM, *record, time.Now()); err != nil || len(kept) != 1 {
		t.Fatalf("Keep() = %v, %v", kept, err)
	}
	for name, want := range map[string]string{work + ":work": "work\n", "all:a": "guest\n"} {
		if got := show(t, record.HostPath, kept[0], name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	return there
}

// show gives a file of a save, as it is in the host's repository, or in a new one for one of files alone.
func show(t *testing.T, host string, save banger.Autosave, name string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(host, ".git")); err != nil {
		host = newRepo(t)
	}
	if err := Restore(t.Context(), save, host); err != nil {
		t.Fatal(err)
	}
	return gitIn(t, host, "show", Namespace(keepVM, save.At)+"/"+name)
}
