package auth

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth/vault"
)

// fromVault takes parameters from HashiCorp Vault.
func (r *resolver) fromVault(ctx context.Context, spec *v1alpha1.HashiCorpVault) error {
	if spec == nil {
		return nil
	}
	var (
		values []string
		until  time.Time
		err    error
	)
	read := func() { values, until, err = r.kept.vault.Read(ctx, spec, r.vaultIdentity(spec), r.Doubted) }
	if r.Aside != nil {
		r.Aside(read)
	} else {
		read()
	}
	if err != nil {
		return fmt.Errorf("hashiCorpVault: %w", err)
	}
	for i, secret := range spec.Secrets {
		r.params.Values[secret.Parameter] = values[i]
	}
	r.params.until(until)
	r.params.until(time.Now().Add(rereadEvery))
	return nil
}

// vaultIdentity is who signs in to Vault for authentication kubernetes: as in KEDA, a service account in the namespace
// of the ScaledJob, or else whose token is in a file, which by default is this Pod's own.
func (r *resolver) vaultIdentity(spec *v1alpha1.HashiCorpVault) vault.Identity {
	var credential v1alpha1.Credential
	if spec.Credential != nil {
		credential = *spec.Credential
	}
	if name := credential.ServiceAccountName; name != "" {
		return vault.Identity{
			Name: "service account " + r.Namespaces.Own + "/" + name,
			JWT: func(ctx context.Context) (string, error) {
				token, _, err := r.serviceAccountToken(ctx, r.Namespaces.Own, name)
				return token, err
			},
		}
	}
	path := cmp.Or(credential.ServiceAccount, ownTokenFile)
	return vault.Identity{
		Name: "file " + path,
		JWT:  func(context.Context) (string, error) { return serviceAccountFile(path) },
	}
}
