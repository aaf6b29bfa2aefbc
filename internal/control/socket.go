package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const (
	// SocketName is the name of the socket in the data folder.
	SocketName = "control.sock"
	// maxSocketPath is the longest path in bytes that every supported system takes as the address of a unix socket:
	// sun_path has 104 bytes on macOS and 108 on Linux, with a terminating zero.
	maxSocketPath = 103
	shortPrefix   = "offboard-"
)

// Listen opens the control socket of the data folder, which must exist. Only the file's owner may connect. A socket
// that an earlier process left behind is replaced: the caller must hold the data folder's lock, so nobody listens
// there.
//
// When the path is too long for a unix socket, the socket is made in the folder for temporary files, and the name in
// the data folder is a symbolic link that tells clients where.
func Listen(dataDir string) (net.Listener, error) {
	path := filepath.Join(dataDir, SocketName)
	removeStale(path)
	// The socket is born in a folder that nobody else can enter, given its permissions there, and then put into place:
	// at no moment can another user connect, and no process-wide umask is touched.
	if l, err := listenIn(dataDir, ".sock-*", func(private, born string) ([]string, error) {
		defer func() { _ = os.Remove(private) }()
		return []string{path}, os.Rename(born, path)
	}); !errors.Is(err, errPathTooLong) {
		return l, err
	}
	publish := func(private, born string) ([]string, error) {
		// A link cannot be overwritten, but it can be renamed over the old one in one step.
		link := path + ".new"
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := os.Symlink(born, link); err != nil {
			return nil, err
		}
		return []string{path, born, private}, os.Rename(link, path)
	}
	temp, err := filepath.Abs(os.TempDir())
	if err != nil {
		return nil, fmt.Errorf("find the folder for temporary files: %w", err)
	}
	l, err := listenIn(temp, shortPrefix+"*", publish)
	if errors.Is(err, errPathTooLong) {
		l, err = listenIn("/tmp", shortPrefix+"*", publish)
	}
	return l, err
}

var errPathTooLong = errors.New("path too long for a unix socket")

// listenIn makes a private folder in dir and listens on a socket in it. publish makes the socket known under the name
// that clients look for, and returns the files and folders to remove when the listener is closed, in their order.
func listenIn(dir, pattern string, publish func(private, born string) ([]string, error)) (net.Listener, error) {
	private, err := os.MkdirTemp(dir, pattern)
	if err != nil {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	born := filepath.Join(private, "s")
	if len(born) > maxSocketPath {
		return nil, errors.Join(errPathTooLong, os.Remove(private))
	}
	undo := func(err error) (net.Listener, error) {
		return nil, errors.Join(fmt.Errorf("make the control socket: %w", err), os.RemoveAll(private))
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: born, Net: "unix"})
	if err != nil {
		return undo(err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(born, 0o600); err != nil {
		_ = l.Close()
		return undo(err)
	}
	remove, err := publish(private, born)
	if err != nil {
		_ = l.Close()
		return undo(err)
	}
	return &listener{UnixListener: l, remove: remove}, nil
}

// listener removes its files when it is closed.
type listener struct {
	*net.UnixListener
	remove []string
	once   sync.Once
}

func (l *listener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() {
		for _, path := range l.remove {
			if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	})
	return err
}

// removeStale removes the folder for temporary files that a killed process has left behind its link, best effort.
func removeStale(path string) {
	target, err := os.Readlink(path)
	if err != nil {
		return
	}
	if dir := filepath.Dir(target); filepath.Base(target) == "s" && strings.HasPrefix(filepath.Base(dir), shortPrefix) {
		_ = os.Remove(target)
		_ = os.Remove(dir)
	}
}

// dial connects to the control socket of the data folder.
func dial(ctx context.Context, dataDir string) (net.Conn, error) {
	path := filepath.Join(dataDir, SocketName)
	address := path
	if target, err := os.Readlink(path); err == nil {
		address = target
	}
	if len(address) > maxSocketPath {
		// Nothing can listen there; the system would call it an invalid argument.
		return nil, notRunning(path, "no socket at")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", address)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, notRunning(path, "no socket at")
	case isRefused(err):
		return nil, notRunning(path, "nothing listens at")
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission to use the control socket %s: use the account that runs offboard up", path)
	}
	return nil, fmt.Errorf("connect to the control socket %s: %w", path, err)
}

func notRunning(path, what string) error {
	return Errorf(NotRunning, "offboard up is not running (%s %s); start it with: offboard up -f DIR", what, path)
}
