// Package database holds what the trigger types have in common that measure with a query to a database: what a number
// may be, and words for what fails on the way. It knows no database.
package database

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"
)

// MaxConnections is how many connections all triggers with equal settings open at the most.
const MaxConnections = 4

// Number returns the value, or an error when it is no amount.
func Number(value float64) (float64, error) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return 0, errors.New("the query returns a value that is not a finite number")
	}
	return value, nil
}

// What a query may return that is not one number.
var (
	ErrNoRow = errors.New("the query returns no row; let it return one in any case, for example with count(*)")
	ErrNull  = errors.New("the query returns NULL; let it return a number in any case, for example with COALESCE(..., 0)")
)

// ResultError tells that a query has worked but returned no amount.
type ResultError struct{ Err error }

// Error implements error.
func (e ResultError) Error() string { return e.Err.Error() }

// Unwrap returns what the query returned instead.
func (e ResultError) Unwrap() error { return e.Err }

// OneColumn returns an error when a query returns another number of columns.
func OneColumn(columns int) error {
	if columns != 1 {
		return ResultError{Err: fmt.Errorf("the query returns %d columns; let it return one", columns)}
	}
	return nil
}

// Reach says in words what an error means that came of connecting, sending or waiting, to be put after the name of the
// server, for example "is not reachable"; "" when the error is of another kind. trust says how to trust an authority.
func Reach(err error, trust string) string {
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var lookup *net.DNSError
	var operation *net.OpError
	switch {
	case errors.As(err, &record):
		return "answers the TLS handshake with something else"
	case errors.As(err, &unknown):
		return "shows a certificate of an unknown authority; " + trust
	case errors.As(err, &hostname):
		return "shows a certificate for another name; give the host by a name that the certificate holds"
	case errors.As(err, &invalid):
		return "shows a certificate that is not valid"
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		return "refuses the TLS connection; it may require a client certificate"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return "does not answer in time"
	case errors.Is(err, context.Canceled):
		return "was not waited for any longer"
	case errors.As(err, &lookup):
		return "has a name that is not found"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "closed the connection"
	case errors.As(err, &operation) && operation.Op == "dial":
		return "is not reachable: " + operation.Err.Error()
	default:
		return ""
	}
}

func isTimeout(err error) bool {
	var failed net.Error
	return errors.As(err, &failed) && failed.Timeout()
}

// maxReply is how many bytes of a server's message an error shows.
const maxReply = 200

// Shorten returns a message of a server as an error may show it: without the secrets, in one line that is not too long.
func Shorten(message string, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			message = strings.ReplaceAll(message, secret, "…")
		}
	}
	message = strings.Join(strings.Fields(message), " ")
	if len(message) <= maxReply {
		return message
	}
	end := maxReply
	for end > 0 && !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + "…"
}
