package control

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isRefused tells whether a socket file exists that nobody listens on.
func isRefused(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTSOCK)
}
