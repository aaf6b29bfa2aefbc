package control

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListen(t *testing.T) {
	t.Parallel()
	base := shortDir(t)
	for name, dataDir := range map[string]string{
		"short":     filepath.Join(base, "s"),
		"just fits": filepath.Join(base, strings.Repeat("f", maxSocketPath-len(base)-len("/.sock-1234567890/s")-1)),
		"border":    filepath.Join(base, strings.Repeat("b", maxSocketPath-len(base)-len("/"+SocketName)-1)),
		"long":      filepath.Join(base, strings.Repeat("l", 200)),
		"blanks":    filepath.Join(base, "with blanks and ü"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := os.Mkdir(dataDir, 0o700); err != nil {
				t.Fatal(err)
			}
			notRunning := func(when, want string) {
				t.Helper()
				_, err := dial(t.Context(), dataDir)
				if ReasonOf(err) != NotRunning || !strings.Contains(err.Error(), want) {
					t.Fatalf("%s: got %v", when, err)
				}
			}
			notRunning("before Listen", "no socket at")
			// Twice without a Close between: what a killed process has left must not matter.
			left, err := Listen(dataDir)
			if err != nil {
				t.Fatal(err)
			}
			_ = left.(*listener).UnixListener.Close()
			notRunning("after the listener's death", "nothing listens at")
			l, err := Listen(dataDir)
			if err != nil {
				t.Fatal(err)
			}
			accepted := make(chan net.Conn, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
				}
				accepted <- conn
			}()
			conn, err := dial(t.Context(), dataDir)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			_ = (<-accepted).Close()
			info, err := os.Stat(filepath.Join(dataDir, SocketName))
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != 0o600 {
				t.Errorf("mode %v, want 0600", got)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dataDir)
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) != 0 {
				t.Errorf("left in the data folder: %v", entries)
			}
			for _, path := range l.(*listener).remove {
				if _, err := os.Lstat(path); !os.IsNotExist(err) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
			if dead := left.(*listener).remove[len(left.(*listener).remove)-1]; !strings.HasPrefix(dead, dataDir) {
				if _, err := os.Lstat(dead); !os.IsNotExist(err) {
					t.Errorf("%s of the killed process is left: %v", dead, err)
				}
			}
		})
	}
}

func TestDialWithoutDataFolder(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"none", strings.Repeat("x", 200)} {
		dir := filepath.Join(t.TempDir(), name)
		_, err := dial(context.Background(), dir)
		want := "offboard up is not running (no socket at " + dir + "/control.sock); start it with: offboard up -f DIR"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	// A plain file in the place of the socket.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(context.Background(), dir); ReasonOf(err) != NotRunning {
		t.Errorf("a plain file: got %v", err)
	}
}

// shortDir returns a folder whose path leaves room for a unix socket; t.TempDir holds the test's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "oc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
