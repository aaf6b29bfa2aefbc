package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// modulePath is that of the module whose root holds scripts/controlplane.
const modulePath = "github.com/offboard-dev/offboard"

// binaries returns the folder that holds the programs of a control plane. It does not build them: that takes longer
// than a test may.
func binaries(ctx context.Context) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	script := filepath.Join(root, "scripts", "controlplane")
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, script, "--built")
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("find the programs of the control plane with %s: %w: %s",
			script, err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// moduleRoot looks for the root of the module from the working directory upwards: the tests of a package run in its
// folder.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the root of the module %s: %w", modulePath, err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(content, []byte("module "+modulePath+"\n")) {
			return dir, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find the root of the module %s: %w", modulePath, err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("neither %s nor a folder above it is the root of the module %s: "+
				"run this in a checkout of the repository", start, modulePath)
		}
	}
}
