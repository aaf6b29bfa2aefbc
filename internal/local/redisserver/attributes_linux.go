package redisserver

import "syscall"

// processAttributes put the server into a process group of its own, so that Ctrl-C reaches this process only, which
// ends the server when nothing needs it any more; and let the system end it in order when this process is killed.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
