package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"
)

var (
	errForbidden    = errors.New("the identity that has signed in has no right to it")
	errInvalidToken = errors.New("the token is refused: it has been revoked, has ended or never was one; give another one")
	errNoVault      = errors.New("the answer is not that of a Vault server")
)

// ownError is an error in our own words, which says everything.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// failure says in our own words what has failed. The errors of the client hold whole answers and URLs, which are not
// for logs; those of a request that Vault finds wrong are given as far as they are its own words, without the secrets
// that were in the request.
func (c *call) failure(doing string, err error, secrets ...string) error {
	if own := new(ownError); errors.As(err, &own) {
		return own
	}
	where := fmt.Sprintf("Vault at %s", redacted(c.spec.Address))
	reason := func(format string, args ...any) error {
		return &ownError{fmt.Errorf("%s: %s: %w", where, doing, fmt.Errorf(format, args...))}
	}
	var response *api.ResponseError
	var transport *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return reason("no answer within %v", timeout)
	case errors.Is(err, context.Canceled):
		return reason("%w", context.Canceled)
	case errors.As(err, &response):
		return reason("%s", c.meaning(response, secrets))
	case errors.As(err, &transport):
		return reason("%w", transport.Err)
	case errors.Is(err, errNoVault):
		return reason("%w", errNoVault)
	}
	return reason("%w", errNoVault) // it cannot be decoded
}

// meaning says what an answer that is an error means:
// https://developer.hashicorp.com/vault/api-docs, "HTTP status codes".
func (c *call) meaning(response *api.ResponseError, secrets []string) string {
	switch response.StatusCode {
	case http.StatusForbidden:
		return "permission denied"
	case http.StatusNotFound:
		return "there is nothing of that name; is the engine mounted there?"
	case http.StatusTooManyRequests:
		return "too many requests (429)"
	case http.StatusServiceUnavailable:
		return "the server is sealed or in maintenance (503)"
	case http.StatusBadRequest:
		if words := c.words(response, secrets); words != "" {
			return "refused (400): " + words
		}
	}
	return fmt.Sprintf("the server answered with HTTP status %d", response.StatusCode)
}

// maxWords is how much of Vault's own words is given.
const maxWords = 200

// words are those of Vault on one line.
func (c *call) words(response *api.ResponseError, secrets []string) string {
	if response.RawError {
		return "" // from who knows whom
	}
	words := strings.Join(strings.Fields(strings.Join(response.Errors, "; ")), " ")
	for _, secret := range append(secrets, c.session.token, c.client.Token()) {
		if secret != "" && strings.Contains(words, secret) {
			return ""
		}
	}
	if runes := []rune(words); len(runes) > maxWords {
		words = string(runes[:maxWords]) + "…"
	}
	return words
}

// refused tells that Vault does not permit what was asked for, or does not know the token.
func refused(err error) bool {
	var response *api.ResponseError
	return errors.As(err, &response) && response.StatusCode == http.StatusForbidden
}

// redacted is an address without a password.
func redacted(address string) string {
	if u, err := url.Parse(address); err == nil {
		return u.Redacted()
	}
	return "that is no URL"
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }
