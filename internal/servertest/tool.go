package servertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tool returns the path of a program that scripts/tool builds, for servers that no package of a system has. It is built
// once for each of its versions; scripts/setup-tests sees to that before the tests, since it can take a minute.
func Tool(tb testing.TB, name string) string {
	tb.Helper()
	root, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(root)
		if parent == root {
			tb.Fatal("no go.mod above this package")
		}
		root = parent
	}
	command := exec.CommandContext(tb.Context(), filepath.Join(root, "scripts", "tool"), name)
	command.Stderr = os.Stderr
	path, err := command.Output()
	if err != nil {
		tb.Fatalf("build %s: %v", name, err)
	}
	return strings.TrimSpace(string(path))
}
