// Command tool is the only program of the tests' guest.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	switch os.Args[1] {
	case "true":
	case "cat":
		io.Copy(os.Stdout, os.Stdin)
	case "sleep":
		fmt.Println("begun")
		time.Sleep(time.Hour)
	case "print":
		os.WriteFile("/dev/console", []byte(os.Args[2]+"\n"), 0)
	case "panic":
		os.WriteFile("/proc/sys/kernel/sysrq", []byte("1"), 0)
		os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "uptime":
		data, err := os.ReadFile("/proc/uptime")
		if err != nil {
			os.Exit(1)
		}
		os.Stdout.Write(data)
	}
}
