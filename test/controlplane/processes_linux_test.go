package controlplane_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/test/controlplane"
)

// processes returns the command lines of the processes that have the folder in theirs.
func processes(t *testing.T, dir string) (found []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		// One that ends meanwhile, or that is a zombie, has none.
		line, _ := os.ReadFile(path)
		if strings.Contains(string(line), dir+"/") {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	c, err := controlplane.Start(t.Context(), controlplane.Options{Kubelet: true})
	if err != nil {
		t.Fatal(err)
	}
	if running := processes(t, c.Dir()); len(running) != 4 {
		t.Errorf("got %d processes, want 4: %v", len(running), running)
	}
	for range 2 {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}
	if left := processes(t, c.Dir()); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := controlplane.Start(t.Context(), controlplane.Options{Dir: dir, APIServerFlags: []string{"--no-such-flag"}})
	if err == nil {
		t.Error("it started")
	}
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// A test that panics, times out or is killed runs no cleanup.
func TestKilledProgramLeavesNothing(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	command := exec.CommandContext(t.Context(), program)
	command.Env = append(os.Environ(), childVar+"="+dir)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil || line != "started\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if running := processes(t, dir); len(running) != 4 {
		t.Errorf("got %d processes, want 4: %v", len(running), running)
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // killed
	eventually(t, "the processes end", func() error {
		if left := processes(t, dir); len(left) > 0 {
			return errors.New(strings.Join(left, "\n"))
		}
		return nil
	})
}

// Whoever can write to etcd can have anything run on a machine with a kubelet.
func TestEtcdServesOnlyTheAPIServer(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	var urls []string
	for _, line := range processes(t, c.Dir()) {
		for flag := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(flag, "=")
			if name == "--listen-client-urls" || name == "--listen-peer-urls" {
				urls = append(urls, value)
			}
		}
	}
	if len(urls) != 2 {
		t.Fatalf("got the URLs %v, want 2", urls)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	for _, url := range urls {
		// A connection that the server closes before it has read the request is reset, and then it is a matter of luck
		// whether the alert is read before that.
		eventually(t, "the refusal of "+url, func() error {
			response, err := (&http.Client{Transport: transport}).Get(url + "/version")
			if err == nil {
				_ = response.Body.Close()
				t.Fatalf("%s answers a stranger: %s", url, response.Status)
			}
			if strings.Contains(err.Error(), "certificate required") || strings.Contains(err.Error(), "bad certificate") {
				return nil
			}
			return err
		})
	}
}
