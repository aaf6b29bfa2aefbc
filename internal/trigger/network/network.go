// Package network holds what triggers have in common that reach their source over a network: TLS from parameters that
// hold PEM, and words for what fails on the way.
package network

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Hint says in words what an error means that came of connecting, sending or waiting, to be put after the name of what
// failed, for example "is not reachable"; "" when the error speaks for itself. withTLS tells that the connection was to
// use TLS.
func Hint(err error, withTLS bool) string {
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var lookup *net.DNSError
	var operation *net.OpError
	switch {
	case errors.As(err, &record):
		return "speaks no TLS on this port; turn TLS off, or give the TLS port"
	case errors.As(err, &unknown):
		return "shows a certificate of an unknown authority; give ca in a TriggerAuthentication"
	case errors.As(err, &hostname):
		return "shows a certificate for another name; give the address by a name that the certificate holds"
	case errors.As(err, &invalid):
		return "shows a certificate that is not valid"
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		return "refuses the TLS connection; it may require a client certificate: " +
			"give cert and key in a TriggerAuthentication"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		if withTLS {
			// The alert that says so may be lost when the server closes the connection behind it.
			return "closed the connection; it may require a client certificate"
		}
		return "closed the connection"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "does not answer in time"
	case errors.As(err, &lookup):
		return "has a name that is not found"
	case errors.As(err, &operation) && operation.Op == "dial":
		return "is not reachable"
	default:
		return ""
	}
}
