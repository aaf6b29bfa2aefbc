package network

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Error says that the server failed: what the hint says in words, or what Hint says where it is empty, then the error's
// own words in one line, without the secrets and without the URL that was asked.
func Error(server, hint string, err error, withTLS bool, secrets ...string) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	switch {
	case hint != "":
	case errors.Is(err, http.ErrSchemeMismatch):
		hint = "speaks no TLS on this port; give its URL with http://, or the TLS port"
	default:
		hint = Hint(err, withTLS)
	}
	if hint != "" {
		server += " " + hint
	}
	if text := hide(err.Error(), secrets); text != err.Error() {
		return fmt.Errorf("%s: %s", server, text)
	}
	return fmt.Errorf("%s: %w", server, err)
}

// hide replaces the secrets, also as a URL has them, and makes one line of several.
func hide(text string, secrets []string) string {
	for _, secret := range secrets {
		for _, form := range []string{
			secret, url.QueryEscape(secret), url.PathEscape(secret), url.UserPassword("", secret).String()[1:],
		} {
			if form != "" {
				text = strings.ReplaceAll(text, form, "…")
			}
		}
	}
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
