// Command inside is the part of the benchmark that runs in a guest, and on the host for comparison. Each verb prints one line of JSON.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "channel" {
		return serveChannel()
	}
	if len(args) < 2 {
		return fmt.Errorf("arguments %q", args)
	}
	figures := map[string]float64{}
	var err error
	switch args[0] {
	case "tcp":
		err = measureTCP(args[1], figures)
	case "connect":
		err = measureConnect(args[1], figures)
	case "flows":
		err = manyFlows(args[1], figures)
	case "handshake":
		err = measureHandshake(args[1], figures)
	default:
		err = fmt.Errorf("unknown verb %q", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures)
}

const (
	span     = 2 * time.Second // how long data moves one way
	requests = 300
	connects = 30
)

// Ports of the servers: see package testenv.
const (
	portEcho  = "7"
	portSink  = "9"
	portFlood = "19"
)

// measureTCP gives MB/s from here and to here, and microseconds for a request and its answer.
func measureTCP(addr string, figures map[string]float64) error {
	out, err := sendFor(span, addr)
	if err != nil {
		return err
	}
	in, err := receiveFor(span, addr)
	if err != nil {
		return err
	}
	request, err := roundTrip(addr)
	if err != nil {
		return err
	}
	figures["out"], figures["in"], figures["request"] = out, in, request
	return nil
}

// sendFor counts what has arrived at the other end.
func sendFor(d time.Duration, addr string) (float64, error) {
	conn, err := net.Dial("tcp", net.JoinHostPort(addr, portSink))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	chunk := make([]byte, 1<<20)
	sent := 0
	begun := time.Now()
	for time.Since(begun) < d {
		n, err := conn.Write(chunk)
		if err != nil {
			return 0, err
		}
		sent += n
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(conn)
	took := time.Since(begun)
	if err != nil {
		return 0, err
	}
	if string(answer) != strconv.Itoa(sent) {
		return 0, fmt.Errorf("%d bytes were sent and %.30q arrived", sent, answer)
	}
	return float64(sent) / 1e6 / took.Seconds(), nil
}

func receiveFor(d time.Duration, addr string) (float64, error) {
	conn, err := net.Dial("tcp", net.JoinHostPort(addr, portFlood))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	chunk := make([]byte, 1<<20)
	got := 0
	begun := time.Now()
	for time.Since(begun) < d {
		n, err := conn.Read(chunk)
		if err != nil {
			return 0, err
		}
		got += n
	}
	return float64(got) / 1e6 / time.Since(begun).Seconds(), nil
}

func roundTrip(addr string) (float64, error) {
	conn, err := net.Dial("tcp", net.JoinHostPort(addr, portEcho))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf := make([]byte, 64)
	return medianOf(requests, func() error {
		if _, err := conn.Write(buf); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, buf)
		return err
	})
}

// measureConnect gives microseconds for a look-up of a name with a connection: the first one, and the median of the others.
func measureConnect(name string, figures map[string]float64) error {
	// What a program does once is no matter of the network. In an emulated guest it takes long.
	if err := connectOnce("other.example.test"); err != nil {
		return err
	}
	once := func() error { return connectOnce(name) }
	first, err := medianOf(1, once)
	if err != nil {
		return err
	}
	figures["first"] = first
	figures["connect"], err = medianOf(connects, once)
	return err
}

func connectOnce(name string) error {
	conn, err := net.Dial("tcp", net.JoinHostPort(name, portEcho))
	if err == nil {
		err = conn.Close()
	}
	return err
}

// medianOf gives microseconds.
func medianOf(n int, fn func() error) (float64, error) {
	var list []time.Duration
	for range n {
		begun := time.Now()
		if err := fn(); err != nil {
			return 0, err
		}
		list = append(list, time.Since(begun))
	}
	slices.Sort(list)
	return float64(list[len(list)/2].Nanoseconds()) / 1000, nil
}

const flows = 1000

// manyFlows holds that many connections open at one time, sends over each, and counts those by which all came back.
func manyFlows(addr string, figures map[string]float64) error {
	var mu sync.Mutex
	var ready, done sync.WaitGroup
	ready.Add(flows)
	whole := 0
	for i := range flows {
		done.Go(func() {
			conn, err := net.Dial("tcp", net.JoinHostPort(addr, portEcho))
			ready.Done()
			if err != nil {
				return
			}
			defer conn.Close()
			ready.Wait()
			text := bytes.Repeat([]byte(strconv.Itoa(i)+"\n"), 1000)
			go conn.Write(text)
			back := make([]byte, len(text))
			if _, err := io.ReadFull(conn, back); err != nil || !bytes.Equal(back, text) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			whole++
		})
	}
	done.Wait()
	figures["flows"], figures["whole"] = flows, float64(whole)
	return nil
}
