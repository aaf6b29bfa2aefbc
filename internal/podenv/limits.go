package podenv

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// maxTotal is how many bytes of environment and arguments together a process can be given at most: Linux allows a
// quarter of the stack's limit, and never more than this (execve(2), fs/exec.c); macOS allows 1 MiB.
const maxTotal = 6 << 20

// longestString returns the bytes of the longest single argument or NAME=VALUE that this machine can pass to a process,
// the terminating zero not counted.
func longestString() int {
	if runtime.GOOS == "linux" {
		const pages = 32 // MAX_ARG_STRLEN, execve(2)
		return pages*os.Getpagesize() - 1
	}
	return maxTotal
}

// errNUL tells why a string cannot be passed to a process.
var errNUL = errors.New("contains a NUL byte, which cannot be passed to a process; encode it, for example as base64")

// room returns how many bytes the value of a variable may have.
func (r *resolver) room(name string) int {
	return max(min(r.longest-len(name)-1, maxTotal-r.total), 0)
}

// set gives a variable a value that a process can be given, or says why that is impossible.
func (r *resolver) set(env *Env, name, value string) error {
	if strings.IndexByte(value, 0) >= 0 {
		return errNUL
	}
	if len(value) > r.room(name) {
		return r.tooLong(fmt.Sprintf("its value of %d bytes", len(value)))
	}
	// What a later variable of the same name replaces is counted too: it had to be computed and may have been used.
	r.total += len(name) + 1 + len(value)
	env.set(name, value)
	return nil
}

func (r *resolver) tooLong(what string) error {
	return fmt.Errorf("%s is more than a process can be given: at most %d bytes in one variable with its name, "+
		"and %d bytes in all; pass large data in a file, or through the queue's own storage", what, r.longest, maxTotal)
}
