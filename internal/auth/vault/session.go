package vault

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// givenToken returns the token for authentication token. As in KEDA, that of the environment (VAULT_TOKEN), which the
// client has read, counts more than that of the manifest.
func givenToken(client *api.Client, spec *v1alpha1.HashiCorpVault) (string, error) {
	if token := client.Token(); token != "" {
		return token, nil
	}
	if spec.Credential != nil && spec.Credential.Token != "" {
		return spec.Credential.Token, nil
	}
	return "", errors.New("authentication token needs a token: give credential.token, or the variable VAULT_TOKEN to " +
		"this process")
}

// signIn makes the client use a token that is valid, and returns when that is to be seen to again.
func (c *call) signIn(ctx context.Context) (until time.Time, err error) {
	t, due, err := c.sessions.Get(ctx, c.session, false, c.obtainToken)
	if err != nil {
		return time.Time{}, c.failure("waiting to sign in", err)
	}
	c.client.SetToken(t.value)
	if c.due = due; t.end.IsZero() {
		due = time.Time{}
	}
	return due, nil
}

// signInAgain makes the client use another token than the one that was refused, or finds that it is valid all the same.
func (c *call) signInAgain(ctx context.Context) error {
	c.sessions.Drop(c.session, c.due)
	_, err := c.signIn(ctx)
	return err
}

// obtainToken prolongs the session, or begins one.
func (c *call) obtainToken(ctx context.Context, previous *token) (token, time.Duration, error) {
	if previous != nil && previous.renewable {
		if renewed, life, err := c.renew(ctx, *previous); err == nil {
			return renewed, life, nil
		}
		// It may have been revoked, or have come to its greatest age, or the server is down: the next request tells.
	}
	if c.spec.Authentication == v1alpha1.VaultAuthenticationKubernetes {
		return c.login(ctx)
	}
	return c.lookUp(ctx)
}

// renew prolongs a token. It fails when the token would not live longer for it.
func (c *call) renew(ctx context.Context, previous token) (token, time.Duration, error) {
	c.client.SetToken(previous.value)
	secret, err := c.client.Auth().Token().RenewSelfWithContext(ctx, 0)
	if err != nil {
		return token{}, 0, err
	}
	t, life, err := fromAuth(secret)
	if err == nil && !t.end.After(previous.end.Add(time.Second)) {
		err = errors.New("the token cannot live longer")
	}
	return t, life, err
}

// login signs in as a service account, which makes a token:
// https://developer.hashicorp.com/vault/api-docs/auth/kubernetes, "login".
func (c *call) login(ctx context.Context) (token, time.Duration, error) {
	jwt, err := c.identity.JWT(ctx)
	if err != nil {
		return token{}, 0, &ownError{err}
	}
	c.client.ClearToken()
	path := "auth/" + c.session.mount + "/login"
	secret, err := c.client.Logical().WriteWithContext(ctx, path, map[string]any{"jwt": jwt, "role": c.session.role})
	if err != nil {
		return token{}, 0, c.failure("signing in at "+quoted(path)+" with role "+quoted(c.session.role), err, jwt)
	}
	t, life, err := fromAuth(secret)
	if err != nil {
		err = c.failure("signing in at "+quoted(path), err)
	}
	return t, life, err
}

// fromAuth reads what a login and a renewal answer.
func fromAuth(secret *api.Secret) (token, time.Duration, error) {
	if secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		return token{}, 0, errNoVault
	}
	return newToken(secret.Auth.ClientToken, secret.Auth.Renewable, time.Duration(secret.Auth.LeaseDuration)*time.Second)
}

// newToken returns a token that is valid for the time left; 0 means that it has no end.
func newToken(value string, renewable bool, left time.Duration) (token, time.Duration, error) {
	if left <= 0 {
		return token{value: value}, endless, nil
	}
	return token{value, renewable, time.Now().Add(left)}, left, nil
}

// lookUp looks whether a token that was given is valid, and for how long. One that can be renewed is renewed at once,
// since what is left of its life may be short.
func (c *call) lookUp(ctx context.Context) (token, time.Duration, error) {
	c.client.SetToken(c.session.token)
	secret, err := c.client.Auth().Token().LookupSelfWithContext(ctx)
	if refused(err) {
		return token{}, 0, &ownError{errInvalidToken}
	}
	if err != nil {
		return token{}, 0, c.failure("looking up the token", err)
	}
	left, renewable, err := lookedUp(secret)
	if err != nil {
		return token{}, 0, c.failure("looking up the token", err)
	}
	found, life, err := newToken(c.session.token, renewable, left)
	if err == nil && renewable && left > 0 {
		if renewed, longer, err := c.renew(ctx, found); err == nil {
			return renewed, longer, nil
		}
	}
	return found, life, err
}

// lookedUp reads for how long a token that was looked up is valid, where 0 means that it has no end.
func lookedUp(secret *api.Secret) (left time.Duration, renewable bool, err error) {
	// The client takes a ttl that is not there for 0.
	if secret == nil || secret.Data["ttl"] == nil {
		return 0, false, errNoVault
	}
	left, ttlErr := secret.TokenTTL()
	renewable, err = secret.TokenIsRenewable()
	if ttlErr != nil || err != nil {
		return 0, false, errNoVault
	}
	return left, renewable, nil
}
