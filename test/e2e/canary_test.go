package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/vaulttest"
)

// canary is in every value that is a secret, and must be in nothing that is printed.
const canary = "c4n4ry"

// canaries are manifests of ScaledJobs that fail, each in its own way, for each source of secrets.
type canaries struct {
	manifests, names []string
	vault            *vaulttest.Server
	token            string
}

// add adds a ScaledJob whose parameter has the value, once for each source.
func (c *canaries) add(t *testing.T, folder, way, metadata, parameter string) {
	t.Helper()
	for _, source := range []string{"secret", "configmap", "env", "file", "vault"} {
		name := source + "-" + way
		value := canary + " of " + name
		kind, spec, envFrom := "TriggerAuthentication", "", ""
		switch source {
		case "secret":
			spec = fmt.Sprintf("{secretTargetRef: [{parameter: %s, name: %s, key: key}]}", parameter, name)
		case "configmap":
			spec = fmt.Sprintf("{configMapTargetRef: [{parameter: %s, name: %s, key: key}]}", parameter, name)
		case "env":
			spec = fmt.Sprintf("{env: [{parameter: %s, name: key}]}", parameter)
			envFrom = fmt.Sprintf("[{secretRef: {name: %s}}]", name)
		case "file":
			kind, spec = "ClusterTriggerAuthentication", "{filePath: "+name+".json}"
			text := fmt.Sprintf("{%q: %q}", parameter, value)
			if err := os.WriteFile(filepath.Join(folder, name+".json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		case "vault":
			c.vault.Put("secret/data/"+name, map[string]any{"key": value})
			spec = c.inVault("secret/data/"+name, "key", parameter, c.token)
		}
		c.declare(name, metadata, kind, spec, envFrom)
		c.manifests = append(c.manifests, fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: %s}
data: {key: %s}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: %s}
data: {key: %q}
`, name, base64.StdEncoding.EncodeToString([]byte(value)), name, value))
	}
}

func (c *canaries) inVault(path, key, parameter, token string) string {
	return fmt.Sprintf("{hashiCorpVault: {address: %q, authentication: token, credential: {token: %q}, "+
		"secrets: [{parameter: %s, path: %s, key: %s}]}}", c.vault.Address(), token, parameter, path, key)
}

func (c *canaries) declare(name, metadata, kind, spec, envFrom string) {
	if envFrom == "" {
		envFrom = "[]"
	}
	c.names = append(c.names, name)
	c.manifests = append(c.manifests, fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: %s
metadata: {name: %s}
spec: %s
---
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: %s}
spec:
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers: [{name: main, command: [sh, -c, "exit 1"], envFrom: %s}]
  triggers:
    - type: redis
      metadata: {listName: %s, listLength: "1", %s}
      authenticationRef: {name: %s, kind: %s}
`, kind, name, spec, name, envFrom, name, metadata, name, kind))
}

// TestNoSecretIsShown lets ScaledJobs with each source of secrets fail in several ways, and looks for the secrets in
// all that is said.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.Options{Password: canary + " of the server"})
	c := &canaries{vault: vaulttest.Start(t)}
	c.token = c.vault.NewToken(canary+"-token", vaulttest.Token{})
	m := newMachine(t, nil)
	files := t.TempDir()
	here := fmt.Sprintf("address: %q", redis.Addr())
	c.add(t, files, "wrong", here, "password")
	c.add(t, files, "down", `address: "127.0.0.1:1"`, "password")
	c.add(t, files, "tls", here+`, enableTLS: "true"`, "ca")
	c.add(t, files, "invalid", here, "tls")
	for name, spec := range map[string]string{
		"missing-key":   "{secretTargetRef: [{parameter: password, name: secret-wrong, key: none}]}",
		"missing-env":   "{env: [{parameter: password, name: NONE}]}",
		"vault-key":     c.inVault("secret/data/vault-wrong", "none", "password", c.token),
		"vault-path":    c.inVault("secret/data/none", "key", "password", c.token),
		"vault-token":   c.inVault("secret/data/vault-wrong", "key", "password", canary+" of nobody"),
		"vault-version": c.inVault("secret/vault-wrong", "key", "password", c.token),
	} {
		envFrom := "[{secretRef: {name: secret-wrong}}]"
		c.declare(name, here, "TriggerAuthentication", spec, envFrom)
	}
	for name, text := range map[string]string{"file-text": canary, "file-list": `["` + canary + `"]`, "file-cut": `{"password": "` + canary} {
		if err := os.WriteFile(filepath.Join(files, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.declare(name, here, "ClusterTriggerAuthentication", "{filePath: "+name+".json}", "")
	}
	// It works until Vault is down.
	c.vault.Put("secret/data/right", map[string]any{"password": canary + " of the server"})
	c.declare("right", here, "TriggerAuthentication", c.inVault("secret/data/right", "password", "password", c.token), "")

	m.write("work.yaml", strings.Join(c.manifests, "---\n"))
	validated, invalid, _ := m.run("validate", "-f", m.manifests)
	m.start("--filepath-auth-root-path", files, "--verbose")
	ready := func(want func(name, status string) bool) func() (bool, string) {
		return func() (bool, string) {
			infos, err := m.client.ScaledJobs(t.Context(), "")
			if err != nil || len(infos) != len(c.names) {
				return false, fmt.Sprintf("%d ScaledJobs, error %v", len(infos), err)
			}
			for _, info := range infos {
				if status := info.Object.Status.Conditions.Get("Ready").Status; !want(info.Object.Name, string(status)) {
					return false, info.Object.Name + " is Ready=" + string(status)
				}
			}
			return true, ""
		}
	}
	m.eventually("all but one fail", ready(func(name, status string) bool {
		return (status == "False") == (name != "right") && status != "Unknown" && status != ""
	}))
	said := map[string]string{"validate": validated + invalid}
	ask := func(args ...string) {
		stdout, stderr, _ := m.run(args...)
		said[strings.Join(args, " ")] = stdout + stderr
	}
	for i, name := range c.names {
		if name == "right" {
			continue
		}
		ask("push", name, "item")
		if i%8 == 0 { // they open triggers as push does
			ask("queue", name)
			ask("dead", "ls", name)
			ask("get", name)
		}
	}
	c.vault.Seal(true)
	redis.Kill() // now all fail, and what they are made from is read again
	m.eventually("all fail", ready(func(_, status string) bool { return status == "False" }))
	ask("push", "right", "item")
	ask("get")
	ask("get", "-o", "yaml")
	ask("get", "-o", "json")
	ask("jobs")
	infos, err := m.client.ScaledJobs(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	said["the conditions"] = fmt.Sprintf("%+v", conditions(infos))
	said["the log"] = m.log.String()
	for where, text := range said {
		if i := strings.Index(text, canary); i >= 0 {
			t.Errorf("%s shows a secret: %s", where, text[max(0, i-200):min(len(text), i+100)])
		}
	}
	for _, name := range c.names {
		if !strings.Contains(said["the log"], name) {
			t.Errorf("the log does not tell of %s, so that this test looks in vain", name)
		}
	}
}

func conditions(infos []control.ScaledJobInfo) (all []any) {
	for _, info := range infos {
		all = append(all, info.Object.Status)
	}
	return all
}
