//go:build !linux

package redisserver

import "syscall"

// processAttributes put the server into a process group of its own, so that Ctrl-C reaches this process only, which
// ends the server when nothing needs it any more. When this process is killed, the server stays until the next Start
// ends it.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
