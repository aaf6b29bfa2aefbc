package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// The tests' binary is what start runs in the background.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "run" {
		if err := command(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := command([]string{"stop", dir}); err != nil {
		t.Errorf("nothing to stop: %v", err)
	}
	t.Cleanup(func() {
		if err := command([]string{"stop", dir}); err != nil {
			t.Error(err)
		}
	})
	var pids [2]int
	for i := range pids {
		err := command([]string{"start", dir})
		if err != nil {
			t.Fatal(err)
		}
		if pids[i], err = holder(dir); err != nil {
			t.Fatal(err)
		}
	}
	if pids[0] == 0 || pids[0] != pids[1] {
		t.Errorf("got the processes %v, want the same one twice", pids)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "data", "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Discovery().ServerVersion(); err != nil {
		t.Error(err)
	}
	if err := command([]string{"run", dir}); err == nil {
		t.Error("a second one runs in the folder")
	}
	if err := command([]string{"stop", dir}); err != nil {
		t.Fatal(err)
	}
	if pid, err := holder(dir); pid != 0 || err != nil {
		t.Errorf("after stop: got %d, %v", pid, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data is left: %v", err)
	}
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"start"}, {"status", t.TempDir()}} {
		if err := command(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
