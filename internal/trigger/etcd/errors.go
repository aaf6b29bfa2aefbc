package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxShown is how many bytes of an error's text are shown.
const maxShown = 300

// explain says which cluster failed, what that means, and what would be right. The error holds no password, nor what
// another server than etcd answers.
func (s settings) explain(ctx context.Context, err error) error {
	prefix := "etcd at " + s.endpoints
	var known rpctypes.EtcdError
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		status.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("%s does not answer in time: %w", prefix, context.DeadlineExceeded)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", prefix, ctx.Err())
	case errors.As(rpctypes.Error(err), &known) && known.Code() != codes.Unknown:
		if hint := s.replyHint(known); hint != "" {
			return fmt.Errorf("%s %s: %s", prefix, hint, known.Error())
		}
		return fmt.Errorf("%s: %s", prefix, known.Error())
	case status.Code(err) == codes.Unavailable:
		text := status.Convert(err).Message()
		hint := s.transportHint(text)
		if hint == "" {
			return fmt.Errorf("%s is not available", prefix)
		}
		return fmt.Errorf("%s %s: %s", prefix, hint, s.shorten(text))
	case status.Code(err) != codes.Unknown:
		return fmt.Errorf("%s does not answer as etcd does (gRPC code %v); give the addresses of etcd's servers for clients",
			prefix, status.Code(err))
	default:
		return fmt.Errorf("%s: %s", prefix, s.shorten(err.Error()))
	}
}

// shorten leaves the password out and cuts what is long.
func (s settings) shorten(text string) string {
	if s.password != "" {
		text = strings.ReplaceAll(text, s.password, "…")
	}
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}

// replyHint says what an error that etcd answers means; "" when it speaks for itself.
func (s settings) replyHint(err error) string {
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Sprintf("does not accept user %q with this password; correct username and password", s.username)
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrUserNotFound):
		return "requires a user; give username and password in a TriggerAuthentication"
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Sprintf("denies user %q the key; allow it with `etcdctl role grant-permission`", s.username)
	default:
		return ""
	}
}

// transportHint says what it means that no connection came about, of which gRPC keeps the text alone; "" for what is
// not known, whose text may be a server's.
func (s settings) transportHint(text string) string {
	const certificate = "it may require a client certificate: give cert and key in a TriggerAuthentication"
	closed := `closed the connection; if it expects TLS, give tls "enable" in a TriggerAuthentication`
	if s.useTLS {
		closed = "closed the connection"
		if s.tls.Cert == "" {
			closed += "; " + certificate
		}
	}
	for _, known := range []struct{ part, hint string }{
		{"connection refused", "is not reachable"},
		{"no such host", "has a name that is not found"},
		{"unknown authority", "shows a certificate of an unknown authority; give ca in a TriggerAuthentication"},
		{"certificate is valid for", "shows a certificate for another name; give endpoints by a name that it holds"},
		{"first record does not look like a TLS handshake", "speaks no TLS on this port; leave tls out"},
		{"remote error: tls", "refuses the TLS connection; " + certificate},
		{"authentication handshake failed", "does not complete the TLS handshake; " +
			"if it speaks no TLS on this port, leave tls out"},
		{"i/o timeout", "does not answer in time"},
		{"context deadline exceeded", "does not answer in time"},
		{"error reading server preface", closed},
		{"connection reset by peer", closed},
		{"broken pipe", closed},
		{"EOF", closed},
		{"transport: Error while dialing", "is not reachable"},
	} {
		if strings.Contains(text, known.part) {
			return known.hint
		}
	}
	return ""
}
