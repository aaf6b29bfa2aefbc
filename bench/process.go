package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is the program that is measured.
type process struct{ cmd *exec.Cmd }

func (p process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// cpu is the processor time that the process has used.
func (p process) cpu() (time.Duration, error) {
	// The clock of another process's processor time, as clock_getcpuclockid(3) makes it.
	const scheduled = 2
	var used unix.Timespec
	id := int32(^p.cmd.Process.Pid<<3 | scheduled)
	if err := unix.ClockGettime(id, &used); err != nil {
		return 0, err
	}
	return time.Duration(used.Nano()), nil
}

// resident is the process's memory in bytes, the parts of its program that it has used included.
func (p process) resident() (int64, error) { return p.memory("VmRSS:") }

// anonymous is the process's memory in bytes without what it has mapped from files, such as its program.
func (p process) anonymous() (int64, error) { return p.memory("RssAnon:") }

func (p process) memory(kind string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, found := strings.Cut(string(status), kind)
	if !found {
		return 0, fmt.Errorf("the status of process %d has no %s", p.cmd.Process.Pid, kind)
	}
	kilobytes, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	return kilobytes << 10, err
}
