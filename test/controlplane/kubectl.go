package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kubectl runs kubectl as the user who may do everything, and returns its output. The error holds what it has said.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) ([]byte, error) {
	return c.KubectlInput(ctx, "", args...)
}

// KubectlInput is Kubectl with a text to read, for example manifests for "apply", "-f", "-".
func (c *Cluster) KubectlInput(ctx context.Context, input string, args ...string) ([]byte, error) {
	flags := []string{"--kubeconfig=" + c.KubeconfigFile(), "--cache-dir=" + c.path("kubectl-cache")}
	command := exec.CommandContext(ctx, c.KubectlPath(), append(flags, args...)...)
	// The home folder may hold preferences, which would change what a command means.
	command.Env = append(os.Environ(), "HOME="+c.dir, "KUBECONFIG=")
	command.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("kubectl %s: %w: %s",
			strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// KubectlPath returns the path of a kubectl of the API server's version.
func (c *Cluster) KubectlPath() string { return filepath.Join(c.binaries, "kubectl") }
