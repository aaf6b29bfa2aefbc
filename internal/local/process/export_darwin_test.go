package process

import "syscall"

func testChildren() []int { return nil }

func exists(pid int) bool { return syscall.Kill(pid, 0) == nil }
