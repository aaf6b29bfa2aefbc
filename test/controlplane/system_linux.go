package controlplane

import (
	"fmt"
	"net"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent makes the system kill the process when the thread that has started it ends.
func endWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// port is a port of 127.0.0.1 that is reserved for a server which sets SO_REUSEPORT, also while that does not run:
// a socket that is bound to it and does not listen keeps everybody else away.
type port struct {
	number int
	socket int
}

func reservePort() (*port, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	p := &port{socket: socket}
	if err := p.bind(); err != nil {
		p.release()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return p, nil
}

func (p *port) bind() error {
	if err := unix.SetsockoptInt(p.socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("set SO_REUSEPORT: %w", err)
	}
	address := &unix.SockaddrInet4{Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}
	if err := unix.Bind(p.socket, address); err != nil {
		return fmt.Errorf("bind a socket to 127.0.0.1: %w", err)
	}
	bound, err := unix.Getsockname(p.socket)
	if err != nil {
		return fmt.Errorf("read the address of a socket: %w", err)
	}
	inet, ok := bound.(*unix.SockaddrInet4)
	if !ok {
		return fmt.Errorf("a socket of IPv4 has the address %v", bound)
	}
	p.number = inet.Port
	return nil
}

func (p *port) release() { _ = unix.Close(p.socket) }
