package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// tokenLife is for how long a token of a service account is asked for; it is KEDA's default.
	tokenLife = time.Hour
	// ownTokenFile is where a Pod finds the token of its service account.
	ownTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// serviceAccountToken returns a token of a service account, and when it should be asked for again.
func (r *resolver) serviceAccountToken(
	ctx context.Context, namespace, name string,
) (string, time.Time, error) {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	return r.kept.tokens.Get(ctx, key, r.Doubted, func(ctx context.Context, _ *string) (string, time.Duration, error) {
		status, err := r.Objects.ServiceAccountToken(ctx, key, tokenLife)
		if err != nil {
			return "", 0, noToken(key, err)
		}
		return status.Token, lifeOf(status), nil
	})
}

// noToken says why there is no token of a service account, as far as we know better than the error.
func noToken(key types.NamespacedName, err error) error {
	named := fmt.Sprintf("ServiceAccount %q", key.String())
	switch {
	case apierrors.IsNotFound(err):
		return unread(named, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("a token of %s must not be asked for: permit it with a Role as the documentation of "+
			"boundServiceAccountToken shows it: %w", named, err)
	}
	return fmt.Errorf("ask for a token of %s: %w", named, err)
}

// lifeOf is for how long a token is valid from now on. The server may give one for a shorter or longer time.
func lifeOf(status *authenticationv1.TokenRequestStatus) time.Duration {
	if status.ExpirationTimestamp.IsZero() {
		return tokenLife
	}
	return time.Until(status.ExpirationTimestamp.Time)
}

// serviceAccountFile reads a token of a service account from a file, for a server that the authentication names. Who
// may write that must not get at other files: what the file holds must be such a token.
func serviceAccountFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open the file %s with the token of a service account: %w", path, cause(err))
	}
	defer func() { _ = file.Close() }()
	text, err := readAll(file, path)
	if err != nil {
		return "", err
	}
	token := string(bytes.TrimSpace(text))
	if !strings.HasPrefix(subject(token), "system:serviceaccount:") {
		return "", fmt.Errorf("%s does not hold a token of a service account", path)
	}
	return token, nil
}

// subject returns whom a JSON Web Token (RFC 7519) is about, without looking at its signature; nothing when it is none.
func subject(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Subject
}
