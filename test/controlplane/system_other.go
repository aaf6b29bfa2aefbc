//go:build !linux

package controlplane

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
)

// endWithParent does nothing: the system has no means for it.
func endWithParent(*exec.Cmd) {}

// port is a port of 127.0.0.1 that was free when it was chosen.
type port struct{ number int }

// reservePort chooses a port from below the range that systems take those of outgoing connections from, so that it is
// most likely still free when a server is started, or started again, on it.
func reservePort() (*port, error) {
	var last error
	for range 1000 {
		number := 12000 + rand.IntN(20000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number))
		if err != nil {
			last = err
			continue
		}
		return &port{number: number}, listener.Close()
	}
	return nil, fmt.Errorf("find a free port of 127.0.0.1: %w", last)
}

func (*port) release() {}
