package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/vaulttest"
)

// canary is in every secret; it must be in no error.
const canary = "c4n4ry"

func TestMain(m *testing.M) {
	// Variables of whoever runs the tests are not for them.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "VAULT_") {
			_ = os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

// manifest is what signs in with a token.
func manifest(address, token string, secrets ...v1alpha1.VaultSecret) *v1alpha1.HashiCorpVault {
	return &v1alpha1.HashiCorpVault{
		Address: address, Authentication: v1alpha1.VaultAuthenticationToken,
		Credential: &v1alpha1.Credential{Token: token}, Secrets: secrets,
	}
}

func secret(path, key string, kind v1alpha1.VaultSecretType) v1alpha1.VaultSecret {
	return v1alpha1.VaultSecret{Parameter: "password", Path: path, Key: key, Type: kind}
}

func read(t *testing.T, r *Reader, spec *v1alpha1.HashiCorpVault) ([]string, time.Time, error) {
	t.Helper()
	values, until, err := r.Read(t.Context(), spec, Identity{}, false)
	if err != nil {
		checkError(t, err)
	}
	return values, until, err
}

func checkError(t *testing.T, err error) {
	t.Helper()
	if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error shows a secret or a whole answer: %q", err)
	}
}

// fails reads and wants an error that says all of it.
func fails(t *testing.T, r *Reader, spec *v1alpha1.HashiCorpVault, want ...string) {
	t.Helper()
	_, _, err := read(t, r, spec)
	if err == nil {
		t.Errorf("there is no error; want %q", want)
		return
	}
	for _, words := range want {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error does not say %q: %v", words, err)
		}
	}
}

func TestReading(t *testing.T) {
	t.Parallel()
	server := vaulttest.Start(t)
	server.Put("secret/data/queue", map[string]any{"password": canary, "user": "worker"})
	server.Put("secret/data/gone", nil)
	server.Put("secret/data/bad", map[string]any{"number": 7, "object": map[string]any{"a": canary}})
	server.Put("kv/queue", map[string]any{"password": canary + "1"})
	reader := vaulttest.Token{TTL: time.Hour, Paths: []string{
		"secret/data/queue", "secret/data/gone", "secret/queue", "secret/data/none", "secret/data/bad", "kv/queue", "none/a",
		"pki/issue/client", "pki/issue/none", "secret/data/changing", "database/creds/queue",
	}}
	token := server.NewToken("reader", reader)
	address := server.Address()
	const v1, v2, pki = v1alpha1.VaultSecretTypeSecret, v1alpha1.VaultSecretTypeSecretV2, v1alpha1.VaultSecretTypePKI

	t.Run("values", func(t *testing.T) {
		t.Parallel()
		var r Reader
		values, until, err := read(t, &r, manifest(address, token,
			secret("secret/data/queue", "password", v2), secret("secret/data/queue", "user", ""),
			secret("kv/queue", "password", v1), secret("kv/queue", "password", ""),
			secret("/secret/data/queue", "password", v2)))
		if want := []string{canary, "worker", canary + "1", canary + "1", canary}; err != nil || !slices.Equal(values, want) {
			t.Errorf("got %q, %v; want %q", values, err, want)
		}
		if left := time.Until(until); left < 30*time.Minute || left > 40*time.Minute {
			t.Errorf("the token is to be seen to in %v; want two thirds of its hour", left)
		}
	})

	t.Run("changes are seen", func(t *testing.T) {
		t.Parallel()
		var r Reader
		for _, want := range []string{"one", "two"} {
			server.Put("secret/data/changing", map[string]any{"password": want})
			values, _, err := read(t, &r, manifest(address, token, secret("secret/data/changing", "password", "")))
			if err != nil || !slices.Equal(values, []string{want}) {
				t.Errorf("got %q, %v; want %q", values, err, want)
			}
		}
	})

	t.Run("certificates", func(t *testing.T) {
		t.Parallel()
		issued := func(key string) v1alpha1.VaultSecret {
			s := secret("pki/issue/client", key, pki)
			s.PkiData = v1alpha1.VaultPkiData{CommonName: "a.example.org", AltNames: "b.example.org", TTL: "30m", Format: "pem"}
			return s
		}
		spec := manifest(address, token, issued("certificate"), issued("private_key"), issued("ca_chain"), issued("serial_number"))
		var r Reader
		values, until, err := read(t, &r, spec)
		if err != nil {
			t.Fatal(err)
		}
		serial := values[3]
		if want := []string{
			"certificate " + serial + " of a.example.org and b.example.org", canary + " key " + serial, "one\ntwo", serial,
		}; !slices.Equal(values, want) {
			t.Errorf("got %q; want %q, all of one certificate", values, want)
		}
		if left := time.Until(until); left < 15*time.Minute || left > 20*time.Minute {
			t.Errorf("the certificate is to be renewed in %v; want two thirds of its half hour", left)
		}
		if again, _, err := read(t, &r, spec); err != nil || !slices.Equal(again, values) {
			t.Errorf("another certificate is issued at once, %v; want the same", err)
		}
		other := issued("certificate")
		other.PkiData.CommonName = "a.example.com"
		fails(t, &r, manifest(address, token, other), `secrets[0] (parameter "password")`, "pki/issue/client", "refused (400)",
			"not allowed by this role")
	})

	t.Run("leases", func(t *testing.T) {
		t.Parallel()
		var r Reader
		spec := manifest(address, token, secret("database/creds/queue", "password", ""))
		values, until, err := read(t, &r, spec)
		if left := time.Until(until); err != nil || left < 30*time.Minute || left > 40*time.Minute {
			t.Errorf("the lease is to be renewed in %v, %v; want two thirds of its hour", left, err)
		}
		if again, _, err := read(t, &r, spec); err != nil || !slices.Equal(again, values) {
			t.Errorf("got %q at once, %v; want %q, which is still good", again, err, values)
		}
	})

	for name, test := range map[string]struct {
		secret v1alpha1.VaultSecret
		want   []string
	}{
		"no key":         {secret("secret/data/queue", "none", v2), []string{`"secret/data/queue" has no key "none"; its keys are "password", "user"`}},
		"no key of 1":    {secret("kv/queue", "none", ""), []string{`has no key "none"; its keys are "password"`}},
		"no path":        {secret("secret/data/none", "k", v2), []string{`there is nothing at "secret/data/none"`}},
		"no data/":       {secret("secret/queue", "password", ""), []string{"KV version 2, whose paths have data/"}},
		"no engine":      {secret("none/a", "k", ""), []string{"none/a"}},
		"deleted":        {secret("secret/data/gone", "password", v2), []string{"is deleted"}},
		"wrong type":     {secret("kv/queue", "password", v2), []string{"no secret of KV version 2", "type secret"}},
		"a number":       {secret("secret/data/bad", "number", ""), []string{`the value of key "number" is no string`}},
		"an object":      {secret("secret/data/bad", "object", ""), []string{`the value of key "object" is no string`}},
		"not permitted":  {secret("secret/data/other", "k", ""), []string{`"secret/data/other": the identity that has signed in has no right to it`, "policy"}},
		"no certificate": {secret("pki/issue/none", "certificate", pki), []string{"pki/issue/none", "refused (400)"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fails(t, new(Reader), manifest(address, token, test.secret), append(test.want, `secrets[0] (parameter "password")`)...)
		})
	}

	t.Run("a token of nobody", func(t *testing.T) {
		t.Parallel()
		fails(t, new(Reader), manifest(address, canary, secret("kv/queue", "password", "")), "the token is refused")
	})
	t.Run("no token", func(t *testing.T) {
		t.Parallel()
		spec := manifest(address, "", secret("kv/queue", "password", ""))
		fails(t, new(Reader), spec, "credential.token", "VAULT_TOKEN")
		spec.Credential = nil
		fails(t, new(Reader), spec, "credential.token", "VAULT_TOKEN")
	})

	t.Run("a token that is renewed", func(t *testing.T) {
		t.Parallel()
		const life = 3 * time.Second
		outlives(t, life, func() func() error {
			token := server.NewToken("renewed", vaulttest.Token{Paths: reader.Paths, TTL: life})
			var r Reader
			spec := manifest(address, token, secret("secret/data/queue", "user", ""))
			return func() error {
				_, _, err := read(t, &r, spec)
				return err
			}
		})
	})
	t.Run("a token that ends", func(t *testing.T) {
		t.Parallel()
		token := server.NewToken("ending", vaulttest.Token{Paths: reader.Paths, TTL: 2 * time.Second, MaxTTL: 2 * time.Second})
		var r Reader
		spec := manifest(address, token, secret("secret/data/queue", "user", ""))
		if _, _, err := read(t, &r, spec); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			_, _, err := read(t, &r, spec)
			if err == nil {
				return errors.New("the token still works")
			}
			if !strings.Contains(err.Error(), "the token is refused") {
				t.Errorf("got %v; want that the token is refused", err)
			}
			return nil
		})
	})
	t.Run("a token that is revoked", func(t *testing.T) {
		t.Parallel()
		server := vaulttest.Start(t)
		server.Put("secret/data/queue", map[string]any{"user": "worker"})
		var r Reader
		spec := manifest(server.Address(), server.NewToken("one", reader), secret("secret/data/queue", "user", ""))
		if _, _, err := read(t, &r, spec); err != nil {
			t.Fatal(err)
		}
		server.Revoke()
		fails(t, &r, spec, "the token is refused")
		spec.Credential.Token = server.NewToken("two", reader)
		if values, _, err := read(t, &r, spec); err != nil || values[0] != "worker" {
			t.Errorf("with another token got %q, %v; want worker", values, err)
		}
	})
	t.Run("the root token, which never ends", func(t *testing.T) {
		t.Parallel()
		token := server.NewToken("root", vaulttest.Token{})
		values, until, err := read(t, new(Reader), manifest(address, token, secret("secret/data/queue", "user", "")))
		if err != nil || values[0] != "worker" || !until.IsZero() {
			t.Errorf("got %q until %v, %v; want worker for ever", values, until, err)
		}
	})
}

// outlives wants what begin returns to work for more than twice as long as a token lives, which it does only if that is
// renewed. It is renewed when it is used in the last third of its life: where the machine is too busy for that, a new
// one begins to live.
func outlives(t *testing.T, life time.Duration, begin func() (use func() error)) {
	t.Helper()
	eventually(t, func() error {
		use, began := begin(), time.Now()
		for last := began; time.Since(began) < 2*life+life/3; time.Sleep(life / 30) {
			err := use()
			unused := time.Since(last)
			if err != nil && unused > life/6 {
				return fmt.Errorf("not used for %v: %w", unused, err)
			}
			if err != nil {
				t.Fatalf("after %v with a token that lives for %v: %v", time.Since(began), life, err)
			}
			last = time.Now()
		}
		return nil
	})
}

// eventually waits until do returns no error.
func eventually(t *testing.T, do func() error) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestTheTokenOfTheEnvironmentCountsMore(t *testing.T) {
	server := vaulttest.Start(t)
	server.Put("secret/data/queue", map[string]any{"password": canary})
	t.Setenv("VAULT_TOKEN", server.NewToken("root", vaulttest.Token{}))
	values, _, err := read(t, new(Reader), manifest(server.Address(), "of nobody", secret("secret/data/queue", "password", "")))
	if err != nil || !slices.Equal(values, []string{canary}) {
		t.Errorf("got %q, %v; want the value", values, err)
	}
	t.Setenv("VAULT_CACERT", "/none/"+canary)
	fails(t, new(Reader), manifest(server.Address(), "", secret("secret/data/queue", "password", "")), "VAULT_...")
}

func TestOutages(t *testing.T) {
	t.Parallel()
	server := vaulttest.Start(t)
	server.Put("secret/data/queue", map[string]any{"password": canary})
	var r Reader
	token := server.NewToken(canary+"-token", vaulttest.Token{TTL: time.Hour})
	spec := manifest(server.Address(), token, secret("secret/data/queue", "password", ""))
	works := func() {
		t.Helper()
		values, _, err := read(t, &r, spec)
		if err != nil || !slices.Equal(values, []string{canary}) {
			t.Errorf("got %q, %v; want the value", values, err)
		}
	}
	works()
	server.Seal(true)
	fails(t, &r, spec, "Vault at "+server.Address(), `reading "secret/data/queue"`, "sealed")
	fails(t, new(Reader), spec, "Vault at "+server.Address(), "looking up the token", "sealed")
	server.Seal(false)
	works()
	server.Stop()
	fails(t, &r, spec, "Vault at "+server.Address(), "connection refused")
	server.Restart()
	works()
	server.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, _, err := r.Read(ctx, spec, Identity{}, false); !errors.Is(err, context.DeadlineExceeded) &&
		!strings.Contains(fmt.Sprint(err), "no answer") {
		t.Errorf("got %v; want that there is no answer", err)
	}
	server.Thaw()
	works()
}

func TestWhatIsNoVault(t *testing.T) {
	t.Parallel()
	var reply atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, body, _ := strings.Cut(reply.Load().(string), " ")
		code := 0
		_, _ = fmt.Sscan(status, &code)
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
		if strings.HasSuffix(body, "…") { // without an end
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}
	}))
	defer server.Close()
	for answer, want := range map[string]string{
		"200 <html>" + canary + "</html>": "not that of a Vault server",
		"200 {}":                          "not that of a Vault server",
		"200 null":                        "not that of a Vault server",
		"200 " + `{"data": {"ttl": "` + canary + `"}}`:                           "not that of a Vault server",
		"400 <html>" + canary + "</html>":                                        "HTTP status 400",
		"400 " + `{"errors": ["the token is ` + canary + `"]}`:                   "HTTP status 400",
		"400 " + `{"errors": ["one", "two\n` + strings.Repeat("x", 1000) + `"]}`: "refused (400): one; two xxx",
		"404 {}":                          "there is nothing of that name",
		"429 {}":                          "too many requests",
		"500 " + canary:                   "HTTP status 500",
		"502 <html>" + canary + "</html>": "HTTP status 502",
		"200 …":                           "not that of a Vault server",
	} {
		reply.Store(answer)
		fails(t, new(Reader), manifest(server.URL, canary, secret("a", "b", "")), want, "Vault at "+server.URL)
	}
	for address, want := range map[string]string{
		"http://127.0.0.1:1":                            "connection refused",
		"https://user:" + canary + "@127.0.0.1:1":       "https://user:xxxxx@127.0.0.1:1",
		"http://127.0.0.1:1/%zz" + canary:               "that is no URL",
		strings.Replace(server.URL, "http", "https", 1): "Vault at https",
	} {
		fails(t, new(Reader), manifest(address, canary, secret("a", "b", "")), want)
	}
}

// jwt returns a token of a service account with a signature of nobody.
func jwt(namespace, name string) string {
	encode := func(value any) string {
		text, err := json.Marshal(value)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return encode(map[string]string{"alg": "RS256"}) + "." + encode(map[string]any{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:" + namespace + ":" + name,
		"kubernetes.io": map[string]any{
			"namespace": namespace, "serviceaccount": map[string]string{"name": name, "uid": "uid-" + name},
		},
	}) + "." + base64.RawURLEncoding.EncodeToString([]byte(canary))
}

func TestSigningInAsAServiceAccount(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) *vaulttest.Server {
		server := vaulttest.Start(t)
		server.Put("secret/data/queue", map[string]any{"password": canary})
		server.PutRole("short", vaulttest.Role{Account: "shop:worker",
			Token: vaulttest.Token{TTL: 2 * time.Second, MaxTTL: 4 * time.Second}})
		server.PutRole("long", vaulttest.Role{Account: "shop:worker", Token: vaulttest.Token{TTL: time.Hour}})
		return server
	}
	spec := func(server *vaulttest.Server, role string) *v1alpha1.HashiCorpVault {
		return &v1alpha1.HashiCorpVault{
			Address: server.Address(), Authentication: v1alpha1.VaultAuthenticationKubernetes, Mount: "cluster", Role: role,
			Secrets: []v1alpha1.VaultSecret{secret("secret/data/queue", "password", "")},
		}
	}
	identity := func(namespace, name string) Identity {
		return Identity{Name: namespace + "/" + name, JWT: func(context.Context) (string, error) {
			return jwt(namespace, name), nil
		}}
	}
	works := func(t *testing.T, server *vaulttest.Server, r *Reader, role string) {
		t.Helper()
		values, _, err := r.Read(t.Context(), spec(server, role), identity("shop", "worker"), false)
		if err != nil || !slices.Equal(values, []string{canary}) {
			t.Fatalf("got %q, %v; want the value", values, err)
		}
	}

	t.Run("once for all", func(t *testing.T) {
		t.Parallel()
		server := start(t)
		var r Reader
		var reading sync.WaitGroup
		for range 10 {
			reading.Go(func() {
				if _, _, err := r.Read(t.Context(), spec(server, "long"), identity("shop", "worker"), false); err != nil {
					t.Error(err)
				}
			})
		}
		reading.Wait()
		if got := server.Logins(); got != 1 {
			t.Errorf("%d have signed in; want 1", got)
		}
	})
	t.Run("again when the token cannot be renewed any more", func(t *testing.T) {
		t.Parallel()
		server := start(t)
		var r Reader
		eventually(t, func() error {
			works(t, server, &r, "short")
			if got := server.Logins(); got < 3 {
				return fmt.Errorf("signed in %d times; want it again and again", got)
			}
			return nil
		})
	})
	t.Run("again when the token is revoked", func(t *testing.T) {
		t.Parallel()
		server := start(t)
		var r Reader
		works(t, server, &r, "long")
		server.Revoke()
		works(t, server, &r, "long")
		if got := server.Logins(); got != 2 {
			t.Errorf("signed in %d times; want 2", got)
		}
	})
	server := start(t)
	for name, test := range map[string]struct {
		role, mount, namespace, account string
		want                            []string
	}{
		"no role":           {"none", "cluster", "shop", "worker", []string{`signing in at "auth/cluster/login" with role "none"`, "invalid role name"}},
		"no mount":          {"long", "none", "shop", "worker", []string{`signing in at "auth/none/login"`}},
		"another account":   {"long", "cluster", "shop", "other", []string{"permission denied"}},
		"another namespace": {"long", "cluster", "billing", "worker", []string{"permission denied"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(server, test.role)
			s.Mount = test.mount
			_, _, err := new(Reader).Read(t.Context(), s, identity(test.namespace, test.account), false)
			if err == nil {
				t.Fatal("there is no error")
			}
			checkError(t, err)
			for _, words := range append(test.want, "Vault at "+server.Address()) {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("the error does not say %q: %v", words, err)
				}
			}
		})
	}
	t.Run("without a token of the account", func(t *testing.T) {
		t.Parallel()
		gone := errors.New("no such account")
		_, _, err := new(Reader).Read(t.Context(), spec(server, "long"), Identity{JWT: func(context.Context) (string, error) {
			return "", gone
		}}, false)
		if !errors.Is(err, gone) {
			t.Errorf("got %v; want %v", err, gone)
		}
	})
}
