//go:build vault

package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/servertest"
)

// realServer is Vault itself. Building it takes many minutes, so only `make test-vault` does.
type realServer struct {
	t       *testing.T
	address string
}

const rootToken = "root"

func startReal(t *testing.T) *realServer {
	t.Helper()
	process := servertest.Start(t, t.TempDir(), servertest.Program{
		Name: servertest.Tool(t, "vault"), Ports: 1,
		Args: func(p *servertest.Process) ([]string, error) { return []string{p.Addr(0), rootToken}, nil },
		Ready: func(ctx context.Context, p *servertest.Process) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addr(0)+"/v1/sys/health", http.NoBody)
			if err != nil {
				return err
			}
			reply, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			defer reply.Body.Close()
			if reply.StatusCode != http.StatusOK {
				return errors.New(reply.Status)
			}
			return nil
		},
	})
	s := &realServer{t, "http://" + process.Addr(0)}
	s.write("sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	s.write("sys/mounts/kv", map[string]any{"type": "kv"})
	s.write("sys/mounts/pki", map[string]any{"type": "pki"})
	s.write("sys/auth/cluster", map[string]any{"type": "kubernetes"})
	return s
}

// write writes with the root token and returns the answer. KV version 2 is not ready at once after it was mounted.
func (s *realServer) write(path string, data map[string]any) (answer struct {
	Auth struct {
		Token string `json:"client_token"`
	}
	Data map[string]any
}) {
	s.t.Helper()
	body, err := json.Marshal(data)
	if err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, func() error {
		request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.address+"/v1/"+path, bytes.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		request.Header.Set("X-Vault-Token", rootToken)
		reply, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer reply.Body.Close()
		var content bytes.Buffer
		if _, err := content.ReadFrom(reply.Body); err != nil {
			return err
		}
		if reply.StatusCode/100 != 2 {
			return fmt.Errorf("write %s: %s %s", path, reply.Status, &content)
		}
		if content.Len() > 0 {
			return json.Unmarshal(content.Bytes(), &answer)
		}
		return nil
	})
	return answer
}

// token makes one with the rights of a policy that may read these paths.
func (s *realServer) token(policy string, options map[string]any, paths ...string) string {
	s.t.Helper()
	s.policy(policy, paths...)
	options["policies"] = []string{policy}
	return s.write("auth/token/create", options).Auth.Token
}

func (s *realServer) policy(name string, paths ...string) {
	s.t.Helper()
	var rules strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&rules, "path %q { capabilities = [\"read\", \"create\", \"update\"] }\n", path)
	}
	s.write("sys/policies/acl/"+name, map[string]any{"policy": rules.String()})
}

// TestRealVault reads from Vault itself what the other tests read from a server that is written from its documentation.
func TestRealVault(t *testing.T) {
	server := startReal(t)
	server.write("secret/data/queue", map[string]any{"data": map[string]any{"password": canary, "user": "worker"}})
	server.write("secret/data/gone", map[string]any{"data": map[string]any{"password": canary}})
	server.write("secret/delete/gone", map[string]any{"versions": []int{1}})
	server.write("secret/data/bad", map[string]any{"data": map[string]any{"number": 7, "object": map[string]any{"a": canary}}})
	server.write("kv/queue", map[string]any{"password": canary + "1"})
	server.write("pki/root/generate/internal", map[string]any{"common_name": "an authority", "ttl": "24h"})
	server.write("pki/roles/client", map[string]any{
		"allowed_domains": "example.org", "allow_subdomains": true, "max_ttl": "2h",
	})
	paths := []string{
		"secret/data/queue", "secret/data/gone", "secret/queue", "secret/data/none", "secret/data/bad", "kv/queue", "none/a",
		"pki/issue/client", "pki/issue/none",
	}
	token := server.token("reader", map[string]any{"ttl": "1h"}, paths...)
	const v1, v2, pki = v1alpha1.VaultSecretTypeSecret, v1alpha1.VaultSecretTypeSecretV2, v1alpha1.VaultSecretTypePKI

	t.Run("values", func(t *testing.T) {
		values, until, err := read(t, new(Reader), manifest(server.address, token,
			secret("secret/data/queue", "password", v2), secret("secret/data/queue", "user", ""),
			secret("kv/queue", "password", v1), secret("kv/queue", "password", "")))
		if want := []string{canary, "worker", canary + "1", canary + "1"}; err != nil || !slices.Equal(values, want) {
			t.Errorf("got %q, %v; want %q", values, err, want)
		}
		if left := time.Until(until); left < 30*time.Minute || left > 40*time.Minute {
			t.Errorf("the token is to be seen to in %v; want two thirds of its hour", left)
		}
	})

	t.Run("certificates", func(t *testing.T) {
		issued := func(key string) v1alpha1.VaultSecret {
			s := secret("pki/issue/client", key, pki)
			s.PkiData = v1alpha1.VaultPkiData{CommonName: "a.example.org", AltNames: "b.example.org", TTL: "30m", Format: "pem"}
			return s
		}
		spec := manifest(server.address, token, issued("certificate"), issued("private_key"), issued("serial_number"))
		var r Reader
		values, until, err := read(t, &r, spec)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(values[0], "-----BEGIN CERTIFICATE-----") || !strings.Contains(values[1], "PRIVATE KEY-----") ||
			values[2] == "" {
			t.Errorf("got %q", values)
		}
		if left := time.Until(until); left < 15*time.Minute || left > 21*time.Minute {
			t.Errorf("the certificate is to be renewed in %v; want two thirds of its half hour", left)
		}
		if again, _, err := read(t, &r, spec); err != nil || !slices.Equal(again, values) {
			t.Errorf("another certificate is issued at once, %v; want the same", err)
		}
		other := issued("certificate")
		other.PkiData.CommonName = "a.example.com"
		fails(t, &r, manifest(server.address, token, other), `secrets[0] (parameter "password")`, "pki/issue/client",
			"refused (400)", "not allowed by this role")
	})

	for name, test := range map[string]struct {
		secret v1alpha1.VaultSecret
		want   []string
	}{
		"no key":         {secret("secret/data/queue", "none", v2), []string{`has no key "none"; its keys are "password", "user"`}},
		"no path":        {secret("secret/data/none", "k", v2), []string{`there is nothing at "secret/data/none"`}},
		"no data/":       {secret("secret/queue", "password", ""), []string{"KV version 2, whose paths have data/"}},
		"no engine":      {secret("none/a", "k", ""), []string{"none/a"}},
		"deleted":        {secret("secret/data/gone", "password", v2), []string{"is deleted"}},
		"wrong type":     {secret("kv/queue", "password", v2), []string{"no secret of KV version 2", "type secret"}},
		"a number":       {secret("secret/data/bad", "number", ""), []string{`the value of key "number" is no string`}},
		"an object":      {secret("secret/data/bad", "object", ""), []string{`the value of key "object" is no string`}},
		"not permitted":  {secret("secret/data/other", "k", ""), []string{`"secret/data/other": the identity that has signed in has no right to it`}},
		"no certificate": {secret("pki/issue/none", "certificate", pki), []string{"pki/issue/none", "refused (400)"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := append(test.want, `secrets[0] (parameter "password")`)
			fails(t, new(Reader), manifest(server.address, token, test.secret), want...)
		})
	}

	t.Run("a token of nobody", func(t *testing.T) {
		fails(t, new(Reader), manifest(server.address, canary, secret("kv/queue", "password", "")), "the token is refused")
	})
	t.Run("a token that is renewed", func(t *testing.T) {
		outlives(t, 3*time.Second, func() func() error {
			token := server.token("renewed", map[string]any{"ttl": "3s"}, "auth/token/renew-self", "auth/token/lookup-self", "kv/queue")
			var r Reader
			spec := manifest(server.address, token, secret("kv/queue", "password", ""))
			return func() error {
				_, _, err := read(t, &r, spec)
				return err
			}
		})
	})
	t.Run("a token that is revoked", func(t *testing.T) {
		one := server.token("one", map[string]any{"ttl": "1h"}, "kv/queue")
		var r Reader
		spec := manifest(server.address, one, secret("kv/queue", "password", ""))
		if _, _, err := read(t, &r, spec); err != nil {
			t.Fatal(err)
		}
		server.write("auth/token/revoke", map[string]any{"token": one})
		fails(t, &r, spec, "the token is refused")
	})
	t.Run("the root token, which never ends", func(t *testing.T) {
		_, until, err := read(t, new(Reader), manifest(server.address, rootToken, secret("kv/queue", "password", "")))
		if err != nil || !until.IsZero() {
			t.Errorf("until %v, %v; want for ever", until, err)
		}
	})
	t.Run("a service account", func(t *testing.T) { realServiceAccount(t, server) })
	t.Run("sealed", func(t *testing.T) {
		server.write("sys/seal", nil)
		fails(t, new(Reader), manifest(server.address, token, secret("kv/queue", "password", "")), "sealed")
	})
}

// realServiceAccount signs in with the method kubernetes, which asks a cluster's API server whose token it is.
func realServiceAccount(t *testing.T, server *realServer) {
	reviews := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			APIVersion string         `json:"apiVersion"`
			Kind       string         `json:"kind"`
			Spec       map[string]any `json:"spec"`
			Status     map[string]any `json:"status"`
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		token, _ := review.Spec["token"].(string)
		parts := strings.Split(token, ".")
		claims, err := base64.RawURLEncoding.DecodeString(parts[1])
		var said struct {
			Sub string `json:"sub"`
		}
		if err != nil || json.Unmarshal(claims, &said) != nil {
			t.Errorf("the token is %q", token)
		}
		names := strings.Split(said.Sub, ":")
		review.Status = map[string]any{"authenticated": true, "user": map[string]any{
			"username": said.Sub, "uid": "uid-" + names[len(names)-1],
			"groups": []string{"system:serviceaccounts", "system:authenticated"},
		}}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer reviews.Close()
	server.write("auth/cluster/config", map[string]any{
		"kubernetes_host": reviews.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": jwt("vault", "reviewer"),
	})
	server.policy("worker", "kv/queue")
	server.write("auth/cluster/role/short", map[string]any{
		"bound_service_account_names": "worker", "bound_service_account_namespaces": "shop", "token_policies": "worker",
		"token_ttl": "2s", "token_max_ttl": "4s",
	})
	spec := func(role string) *v1alpha1.HashiCorpVault {
		return &v1alpha1.HashiCorpVault{
			Address: server.address, Authentication: v1alpha1.VaultAuthenticationKubernetes, Mount: "cluster", Role: role,
			Secrets: []v1alpha1.VaultSecret{secret("kv/queue", "password", "")},
		}
	}
	identity := func(namespace, name string) Identity {
		return Identity{Name: namespace + "/" + name, JWT: func(context.Context) (string, error) {
			return jwt(namespace, name), nil
		}}
	}
	var r Reader
	for began := time.Now(); time.Since(began) < 6*time.Second; time.Sleep(100 * time.Millisecond) {
		values, _, err := r.Read(t.Context(), spec("short"), identity("shop", "worker"), false)
		if err != nil || !slices.Equal(values, []string{canary + "1"}) {
			t.Fatalf("after %v got %q, %v; want the value", time.Since(began), values, err)
		}
	}
	for name, of := range map[string][3]string{
		"no role":           {"none", "shop", "worker"},
		"another account":   {"short", "shop", "other"},
		"another namespace": {"short", "billing", "worker"},
	} {
		_, _, err := new(Reader).Read(t.Context(), spec(of[0]), identity(of[1], of[2]), false)
		if err == nil || !strings.Contains(err.Error(), `signing in at "auth/cluster/login" with role "`+of[0]+`"`) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		checkError(t, err)
	}
}
