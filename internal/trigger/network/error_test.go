package network_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

func TestErrorShowsNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "p@ss w/rd"
	for _, err := range []error{
		errors.New("you said " + secret),
		errors.New("you said " + url.QueryEscape(secret)),
		errors.New("you said " + url.PathEscape(secret)),
		errors.New("you said " + url.UserPassword("u", secret).String()),
		&url.Error{Op: "Get", URL: "http://h/?key=" + secret, Err: io.EOF},
	} {
		text := network.Error("server at h", "", err, false, "", secret).Error()
		if strings.Contains(text, "w/rd") || strings.Contains(text, "w%2F") || !strings.HasPrefix(text, "server at h") {
			t.Errorf("error %q", text)
		}
	}
}

func TestErrorSaysWhatFailed(t *testing.T) {
	t.Parallel()
	made := network.Error("server at h", "is odd", fmt.Errorf("a: %w", io.EOF), false, "secret")
	if !errors.Is(made, io.EOF) || made.Error() != "server at h is odd: a: EOF" {
		t.Errorf("error %v does not hold what it is made of", made)
	}
	if got, want := network.Error("server at h", "", io.EOF, false).Error(), "server at h closed the connection: EOF"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
	if got := network.Error("server at h", "", http.ErrSchemeMismatch, true).Error(); !strings.Contains(got, "speaks no TLS") {
		t.Errorf("error %q", got)
	}
	err := errors.Join(errors.New("one"), errors.New("two"))
	if got, want := network.Error("server at h", "", err, false).Error(), "server at h: one; two"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}
