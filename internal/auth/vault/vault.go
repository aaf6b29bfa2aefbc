// Package vault reads parameters from HashiCorp Vault, or from OpenBao, which has the same API.
//
// It signs in with a token or as a service account of Kubernetes, keeps the session alive for as long as it is used,
// and signs in again where it can. Secrets that Vault makes for the reader and that end (leases and certificates) are
// kept until two thirds of their life are over; all others are read each time. Nothing runs between two calls.
//
// No error has a secret in it, nor the reply of a server as a whole.
package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth/lease"
)

const (
	// timeout bounds all requests of one call together.
	timeout = 10 * time.Second
	// maxReply is the most bytes of one answer that are read.
	maxReply = 4 << 20
	// endless is how long a token that has no end is used until it is looked up again.
	endless = 24 * time.Hour
)

// Identity is who signs in.
type Identity struct {
	// Name tells identities apart.
	Name string
	// JWT returns a token of a service account; it is used for authentication kubernetes only.
	JWT func(ctx context.Context) (string, error)
}

// Reader reads secrets and keeps the sessions for that. The zero value has none.
type Reader struct {
	sessions lease.Values[session, token]
	secrets  lease.Values[issue, *api.Secret]
}

// session is what one sign-in holds for.
type session struct {
	address, namespace, authentication, mount, role, token, identity string
}

// token is the token of a session.
type token struct {
	value     string
	renewable bool
	end       time.Time // zero if it has none
}

// issue names a secret that is made for its reader. With the token of its reader a lease ends as well.
type issue struct {
	session session
	token   string
	request request
}

// request is one request for a secret; one serves all parameters that are taken from it.
type request struct {
	path string
	kind v1alpha1.VaultSecretType
	pki  v1alpha1.VaultPkiData
}

// Read returns the values of spec.Secrets, in their order, and when they should be read again because a secret or the
// session ends; zero when nothing ends. What does not work any more is doubted: then it is read anew even if it is
// kept. The values are read within 10 seconds or as long as ctx allows.
func (r *Reader) Read(
	ctx context.Context, spec *v1alpha1.HashiCorpVault, identity Identity, doubted bool,
) (values []string, until time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client, err := newClient(spec)
	if err != nil {
		return nil, time.Time{}, err
	}
	c := &call{Reader: r, client: client, spec: spec, identity: identity, doubted: doubted, session: session{
		address: spec.Address, namespace: spec.Namespace, authentication: string(spec.Authentication), mount: spec.Mount,
		role: spec.Role, identity: identity.Name,
	}}
	if spec.Authentication == v1alpha1.VaultAuthenticationToken {
		if c.session.token, err = givenToken(client, spec); err != nil {
			return nil, time.Time{}, err
		}
	}
	if until, err = c.signIn(ctx); err != nil {
		return nil, time.Time{}, err
	}
	found := map[request]*api.Secret{}
	for i, wanted := range spec.Secrets {
		q := request{path: wanted.Path, kind: wanted.Type}
		if wanted.Type == v1alpha1.VaultSecretTypePKI {
			q.pki = wanted.PkiData
		}
		secret, known := found[q]
		if !known {
			var due time.Time
			if secret, due, err = c.get(ctx, q); err != nil {
				return nil, time.Time{}, entryError(i, wanted, err)
			}
			found[q], until = secret, sooner(until, due)
		}
		value, err := valueOf(secret, wanted)
		if err != nil {
			return nil, time.Time{}, entryError(i, wanted, err)
		}
		values = append(values, value)
	}
	return values, until, nil
}

func entryError(i int, wanted v1alpha1.VaultSecret, err error) error {
	return fmt.Errorf("secrets[%d] (parameter %q): %w", i, wanted.Parameter, err)
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// newClient returns a client for one call. The environment of this process configures it as it does Vault's own
// programs (VAULT_CACERT, VAULT_SKIP_VERIFY and so on).
func newClient(spec *v1alpha1.HashiCorpVault) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, errors.New("the VAULT_... variables of this process's environment cannot be used; correct them")
	}
	config.Address, config.AgentAddress = spec.Address, ""
	config.MaxRetries = 0 // the caller tries again
	if transport, ok := config.HttpClient.Transport.(*http.Transport); ok {
		transport.DisableKeepAlives = true // the next call comes much later
	}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("address %q cannot be used", redacted(spec.Address))
	}
	config.HttpClient.Transport = bounded{config.HttpClient.Transport}
	if spec.Namespace != "" {
		client.SetNamespace(spec.Namespace)
	}
	return client, nil
}

// bounded cuts answers off that are too long to be honest.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(request)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxReply), response.Body}
	}
	return response, err
}

// call is one call of Read.
type call struct {
	*Reader
	client   *api.Client
	spec     *v1alpha1.HashiCorpVault
	identity Identity
	session  session
	doubted  bool
	due      time.Time // of the session's token, as it was given out
}

// get returns a secret and when it is to be read again.
func (c *call) get(ctx context.Context, q request) (*api.Secret, time.Time, error) {
	return c.secrets.Get(ctx, issue{c.session, c.client.Token(), q}, c.doubted,
		func(ctx context.Context, _ **api.Secret) (*api.Secret, time.Duration, error) {
			began := time.Now()
			secret, err := c.fetch(ctx, q)
			if refused(err) {
				// The session may have ended before its time. If not, this identity may not read the path.
				if err := c.signInAgain(ctx); err != nil {
					return nil, 0, err
				}
				if secret, err = c.fetch(ctx, q); refused(err) {
					return nil, 0, fmt.Errorf("%s: %w; permit it with a policy of Vault", quoted(q.path), errForbidden)
				}
			}
			switch {
			case err != nil:
				return nil, 0, c.failure("reading "+quoted(q.path), err)
			case secret == nil || secret.Data == nil:
				return nil, 0, missing(q, secret)
			}
			return secret, life(secret, q, began), nil
		})
}

func (c *call) fetch(ctx context.Context, q request) (*api.Secret, error) {
	if q.kind == v1alpha1.VaultSecretTypePKI {
		return c.client.Logical().WriteWithContext(ctx, q.path, pkiParameters(q.pki))
	}
	return c.client.Logical().ReadWithContext(ctx, q.path)
}

// pkiParameters are those of https://developer.hashicorp.com/vault/api-docs/secret/pki, "generate certificate and key".
func pkiParameters(pki v1alpha1.VaultPkiData) map[string]any {
	parameters := map[string]any{}
	for name, value := range map[string]string{
		"common_name": pki.CommonName, "alt_names": pki.AltNames, "ip_sans": pki.IPSans, "uri_sans": pki.URISans,
		"other_sans": pki.OtherSans, "ttl": pki.TTL, "format": pki.Format,
	} {
		if value != "" {
			parameters[name] = value
		}
	}
	return parameters
}
