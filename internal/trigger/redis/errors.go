package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/redis/rueidis"
)

// keyError tells that something about a key is not as it must be.
type keyError struct {
	message string
	cause   error
}

func (e keyError) Error() string {
	if e.cause == nil {
		return e.message
	}
	return e.message + ": " + e.cause.Error()
}

func (e keyError) Unwrap() error { return e.cause }

// answerError tells that an answer is of no use.
type answerError string

func (e answerError) Error() string { return string(e) }

// errShape is the error of an answer that is not as documented. It does not show what it is instead.
const errShape = answerError("answers in an unknown form")

// explain says which server failed, what that means, and what would be right. The error holds no password, also where a
// server echoes the command that it does not know.
func explain(err error, address string, s settings) error {
	if s.password != "" && strings.Contains(err.Error(), s.password) {
		err = errors.New(strings.ReplaceAll(err.Error(), s.password, "…"))
	}
	what := "redis"
	switch s.topology {
	case clusterTopology:
		what = "redis cluster"
	case sentinelTopology:
		what = "redis with sentinels"
		if address != s.addresses {
			what = "redis"
		}
	case sentinelItself:
		what = "redis sentinel"
	case singleTopology, clusterNode:
	}
	if hint := hint(err, s); hint != "" {
		return fmt.Errorf("%s at %s %s: %w", what, address, hint, err)
	}
	return fmt.Errorf("%s at %s: %w", what, address, err)
}

func (c *connection) explain(err error, address string) error {
	return explain(err, address, c.settings)
}

// explainKey is explain for an error that concerns one key.
func (c *connection) explainKey(err error, address, key string) error {
	var wrong keyError
	if errors.As(err, &wrong) {
		return fmt.Errorf("redis at %s: key %q %w", address, key, err)
	}
	return c.explain(err, address)
}

// hint says in words what an error means; "" when it speaks for itself.
func hint(err error, s settings) string {
	if reply := replyText(err); reply != "" {
		return replyHint(reply, s)
	}
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	switch {
	case errors.As(err, &record):
		return `speaks no TLS on this port; leave out enableTLS and tls, or give the TLS port`
	case errors.As(err, &unknown):
		return "shows a certificate of an unknown authority; give ca in a TriggerAuthentication"
	case errors.As(err, &hostname):
		return "shows a certificate for another name; give the address by a name that the certificate holds"
	case errors.As(err, &invalid):
		return "shows a certificate that is not valid"
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		return "refuses the TLS connection; it may require a client certificate: " +
			"give cert and key in a TriggerAuthentication"
	case errors.Is(err, errHandshake):
		return "does not complete the TLS handshake; if it speaks no TLS on this port, leave out enableTLS and tls"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.EPIPE):
		switch {
		case !s.withTLS:
			return `closed the connection; if it expects TLS, give enableTLS "true"`
		case s.tls.Cert == "":
			// The alert that says so may be lost when the server closes the connection behind it.
			return "closed the connection; it may require a client certificate: give cert and key in a TriggerAuthentication"
		default:
			return "closed the connection"
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "does not answer in time"
	case errors.Is(err, net.ErrClosed), errors.Is(err, rueidis.ErrClosing):
		return "is not connected any more"
	case isDialError(err):
		return "is not reachable"
	default:
		return ""
	}
}

// replyHint says what an error reply of the server means, by its first word.
func replyHint(reply string, s settings) string {
	word, _, _ := strings.Cut(reply, " ")
	switch s.topology {
	case sentinelItself:
		if hint := sentinelHint(word, reply, s); hint != "" {
			return hint
		}
	case clusterNode:
		if hint := clusterHint(word, reply); hint != "" {
			return hint
		}
	case singleTopology, sentinelTopology, clusterTopology:
	}
	switch word {
	case "WRONGPASS":
		return fmt.Sprintf("does not accept user %q with this password; correct username and password", s.user())
	case "NOAUTH":
		return "requires a password; give passwordFromEnv, or password in a TriggerAuthentication"
	case "NOPERM":
		return fmt.Sprintf("denies user %q a command or the key; allow it with ACL SETUSER", s.user())
	case "LOADING":
		return "is still loading its data"
	case "READONLY":
		return "is a replica, which takes no items; give the address of its master"
	case "MASTERDOWN":
		return "is a replica that has lost its master; give the address of the master"
	case "MOVED", "ASK", "CLUSTERDOWN", "CROSSSLOT":
		return "is a node of a Redis Cluster; use trigger type redis-cluster, or redis-cluster-streams for a stream"
	case "WRONGTYPE":
		return "holds another type under this key; items can be pushed to a list, or to a stream where the trigger reads one"
	}
	switch {
	case strings.Contains(reply, "DB index"):
		return fmt.Sprintf("has no database %d; give a databaseIndex below its setting `databases`, 16 unless changed",
			s.database)
	case strings.Contains(reply, "cluster mode"):
		return "is a node of a Redis Cluster, which has database 0 only; use trigger type redis-cluster, " +
			"or redis-cluster-streams for a stream"
	default:
		return ""
	}
}

// sentinelHint says what an error reply of a sentinel means.
func sentinelHint(word, reply string, s settings) string {
	switch {
	case word == "WRONGPASS":
		return fmt.Sprintf("does not accept user %q with this password; correct sentinelUsername and sentinelPassword",
			s.user())
	case word == "NOAUTH":
		return "requires a password; give sentinelPasswordFromEnv, or sentinelPassword in a TriggerAuthentication"
	case strings.Contains(reply, "unknown command"):
		return "is no sentinel; give the addresses of sentinels, or use trigger type redis or redis-streams"
	default:
		return ""
	}
}

// clusterHint says what an error reply of a node of a cluster means.
func clusterHint(word, reply string) string {
	switch {
	case word == "MOVED", word == "ASK":
		return "and other nodes of the Redis Cluster name each other for the key; they may be about to agree"
	case word == "CLUSTERDOWN":
		return "is a node of a Redis Cluster that is down, as a node or its slots are missing"
	case word == "TRYAGAIN":
		return "is moving the slot of the key to another node"
	case strings.Contains(reply, "cluster support disabled"):
		return "is no node of a Redis Cluster; use trigger type redis or redis-streams"
	default:
		return ""
	}
}

// replyText returns the text of the server's error reply; "" when the error is of another origin.
func replyText(err error) string {
	var reply *rueidis.RedisError
	if err == nil || !errors.As(err, &reply) {
		return ""
	}
	return reply.Error()
}

// replyWord returns the first word of the server's error reply; "" when the error is of another origin.
func replyWord(err error) string {
	word, _, _ := strings.Cut(replyText(err), " ")
	return word
}

func hasReply(err error, word string) bool { return strings.HasPrefix(replyText(err), word) }

func isWrongType(err error) bool { return hasReply(err, "WRONGTYPE") }

func isLoading(err error) bool { return hasReply(err, "LOADING") }

// isPassing tells whether a reply says how the server fares, rather than what is wrong with the question.
func isPassing(err error) bool {
	switch replyWord(err) {
	case "LOADING", "MASTERDOWN", "BUSY", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK":
		return true
	default:
		return false
	}
}

// isNoPermission also knows the text that rueidis makes of a denied command while it connects.
func isNoPermission(err error) bool { return hasReply(err, "NOPERM") }

// isLost tells whether an error means that the connection is gone, as opposed to a reply or a caller that gave up.
func isLost(err error) bool {
	return replyText(err) == "" && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.As(err, new(keyError)) && !errors.As(err, new(answerError))
}

func isDialError(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "dial"
}
