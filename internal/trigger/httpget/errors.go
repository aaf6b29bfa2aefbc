package httpget

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// StatusError means that the server answered with a status other than 2xx.
type StatusError struct {
	Code int
	// Body is what the server sent. It may hold anything.
	Body []byte
}

// Error returns the status and what it means.
func (e StatusError) Error() string {
	text := fmt.Sprintf("answers with status %d", e.Code)
	if name := http.StatusText(e.Code); name != "" {
		text += " " + name
	}
	switch e.Code {
	case http.StatusUnauthorized:
		text += "; correct authModes and the credentials in the TriggerAuthentication"
	case http.StatusForbidden:
		text += "; allow these credentials to read it, or give others in the TriggerAuthentication"
	case http.StatusNotFound:
		text += "; correct the path of the address"
	}
	return text
}

// explain says which server failed and what that means.
func (c *Client) explain(err error, address *url.URL) error {
	// The client's own errors hold the whole address, in whose query there may be a key.
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	where := address.Host + address.Path
	if errors.As(err, new(StatusError)) {
		return fmt.Errorf("%s %w", where, err)
	}
	hint := network.Hint(err, address.Scheme == "https")
	if errors.Is(err, http.ErrSchemeMismatch) {
		hint = "speaks no TLS on this port; give an address that begins with http://"
	}
	if hint != "" {
		where += " " + hint
	}
	if text := err.Error(); c.Show(text) != text {
		return fmt.Errorf("%s: %s", where, c.Show(text))
	}
	return fmt.Errorf("%s: %w", where, err)
}

// Show returns a text that a server may have written as it may be shown: short, in one line, and without the secrets of
// the client.
func (c *Client) Show(text string) string { return network.Show(text, c.secrets) }
