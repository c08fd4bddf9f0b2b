package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// Usage reads what exactly this process uses. Errors: ErrNotFound when it is gone.
func (h Handle) Usage() (banger.ProcessUsage, error) {
	boot, err := BootID()
	if err != nil {
		return banger.ProcessUsage{}, fmt.Errorf("read boot id: %w", err)
	}
	if boot != h.BootID {
		return banger.ProcessUsage{}, errGone
	}
	clock, err := readClock(unix.CLOCK_MONOTONIC)
	if err != nil {
		return banger.ProcessUsage{}, err
	}
	stat, err := readStat(h.PID)
	if err == nil && stat.started != h.StartTime {
		err = errGone
	}
	if err != nil {
		return banger.ProcessUsage{}, err
	}
	return banger.ProcessUsage{CPU: time.Duration(stat.user+stat.system) * clockTick, ResidentBytes: stat.resident * int64(os.Getpagesize()), Clock: clock}, nil
}

// HostTime is this moment by the clock of this boot of the host.
func HostTime() (banger.HostTime, error) {
	boot, err := BootID()
	if err != nil {
		return banger.HostTime{}, fmt.Errorf("read boot id: %w", err)
	}
	elapsed, err := readClock(unix.CLOCK_BOOTTIME)
	return banger.HostTime{BootID: boot, SinceBoot: elapsed}, err
}

func readClock(id int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("read clock %d: %w", id, err)
	}
	return time.Duration(ts.Nano()), nil
}

// clockTick is the unit of times in /proc: USER_HZ is 100 on every architecture that Go supports.
const clockTick = time.Second / 100

// stat is what we use of /proc/PID/stat (proc(5)).
type stat struct {
	user, system uint64 // fields 14 and 15: clock ticks
	started      uint64 // 22: clock ticks since boot
	resident     int64  // 24: pages
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return stat{}, errGone
	}
	if err != nil {
		return stat{}, err
	}
	return parseStat(text)
}

// parseStat finds the fields. The second one, the name, may hold anything, closing parentheses too.
func parseStat(text []byte) (stat, error) {
	const nameAndBefore, wanted = 2, 24
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < wanted-nameAndBefore {
		return stat{}, fmt.Errorf("%w: process status has %d fields", banger.ErrCorrupt, len(fields))
	}
	var errs []error
	number := func(field int) uint64 {
		n, err := strconv.ParseUint(string(fields[field-1-nameAndBefore]), 10, 63)
		errs = append(errs, err)
		return n
	}
	s := stat{user: number(14), system: number(15), started: number(22), resident: int64(number(24))}
	if err := errors.Join(errs...); err != nil {
		return stat{}, fmt.Errorf("%w: process status: %w", banger.ErrCorrupt, err)
	}
	return s, nil
}
