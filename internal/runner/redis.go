package runner

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	dialTimeout = 3 * time.Second
	// quietTimeout is the longest time without a byte from the server, or without the server taking one.
	quietTimeout = 30 * time.Second
	firstDelay   = 20 * time.Millisecond
	lastDelay    = time.Second
)

// queue is one connection to the list.
type queue struct {
	config config
	conn   net.Conn
	r      *bufio.Reader
	// passwordUnused tells that a password was given to a server that has none.
	passwordUnused bool
}

// take connects and takes the item at the head of the list; a nil item without an error means that the list is empty.
// It tries again for as long as patience lasts when the server cannot be reached or is just starting, but never once an
// item may have been taken. The end of ctx is heeded as long as no item can be taken.
func take(ctx context.Context, c config, patience time.Duration) (*queue, []byte, error) {
	deadline := time.Now().Add(patience)
	for delay := firstDelay; ; delay = min(2*delay, lastDelay) {
		q, item, err := tryTake(ctx, c)
		if err == nil {
			return q, item, nil
		}
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		if !passing(err) || time.Now().Add(delay).After(deadline) {
			return nil, nil, fmt.Errorf("redis at %s: %w", c.address(), err)
		}
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-time.After(delay):
		}
	}
}

func tryTake(ctx context.Context, c config) (*queue, []byte, error) {
	q, err := connect(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		q.close()
		return nil, nil, err
	}
	item, err := q.do("LPOP", c.list)
	if err != nil {
		q.close()
		return nil, nil, q.explain("take an item from", err)
	}
	return q, item, nil
}

// errUnknownOutcome means that the connection broke while a command was under way.
var errUnknownOutcome = errors.New("whether it has happened is not known")

// passing tells whether an error is one that may go away by itself within seconds.
func passing(err error) bool {
	var (
		fromServer serverError
		fromTLS    tls.RecordHeaderError
		untrusted  *tls.CertificateVerificationError
		alert      tls.AlertError
	)
	switch {
	case errors.As(err, &fromServer):
		code, _, _ := strings.Cut(string(fromServer), " ")
		return code == "LOADING" || code == "MASTERDOWN"
	case errors.Is(err, errUnknownOutcome), errors.Is(err, errProtocol),
		errors.As(err, &untrusted), errors.As(err, &fromTLS), errors.As(err, &alert):
		return false
	}
	return true
}

// connect makes a connection that is ready for commands on the list.
func connect(ctx context.Context, c config) (*queue, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", c.address())
	if err != nil {
		return nil, err
	}
	conn = patientConn{conn}
	if c.tls {
		secure := tls.Client(conn, &tls.Config{ServerName: c.host, MinVersion: tls.VersionTLS12})
		handshake, cancel := context.WithTimeout(ctx, 2*dialTimeout)
		defer cancel()
		if err := secure.HandshakeContext(handshake); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		conn = secure
	}
	q := &queue{config: c, conn: conn, r: bufio.NewReaderSize(conn, 16<<10)}
	if err := q.prepare(ctx); err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

// prepare logs in and selects the database. The list is not touched before both have succeeded.
func (q *queue) prepare(ctx context.Context) error {
	defer context.AfterFunc(ctx, q.close)()
	var (
		request []byte
		replies []func(error) error
	)
	if q.config.user != "" || q.config.password != "" {
		login := []string{"AUTH"}
		if q.config.user != "" {
			login = append(login, q.config.user)
		}
		request = appendCommand(request, append(login, q.config.password)...)
		replies = append(replies, q.loggedIn)
	}
	if q.config.db != 0 {
		request = appendCommand(request, "SELECT", strconv.Itoa(q.config.db))
		replies = append(replies, func(err error) error {
			if err != nil {
				return fmt.Errorf("select the database %d that REDIS_DB names: %w", q.config.db, err)
			}
			return nil
		})
	}
	if len(replies) == 0 {
		return nil
	}
	if _, err := q.conn.Write(request); err != nil {
		return err
	}
	for _, check := range replies {
		_, err := readReply(q.r)
		if err := check(err); err != nil {
			return err
		}
	}
	return nil
}

func (q *queue) loggedIn(err error) error {
	if err == nil {
		return nil
	}
	// A server that asks for no password says so with an error. Everything works there all the same, and a manifest
	// with a password in it is meant to work unchanged against a server on a developer's machine.
	if text := err.Error(); strings.Contains(text, "without any password configured") ||
		strings.Contains(text, "no password is set") {
		q.passwordUnused = true
		return nil
	}
	if q.config.user != "" {
		return fmt.Errorf("log in as the user %q of REDIS_USER with REDIS_PASSWORD: %w", q.config.user, err)
	}
	return fmt.Errorf("log in with REDIS_PASSWORD: %w", err)
}

// giveBack puts an item back to the head of the list.
func (q *queue) giveBack(item []byte) error {
	if _, err := q.do("LPUSH", q.config.list, string(item)); err != nil {
		return q.explain("give the item back to", err)
	}
	return nil
}

// do sends one command and returns its answer.
func (q *queue) do(args ...string) ([]byte, error) {
	if _, err := q.conn.Write(appendCommand(nil, args...)); err != nil {
		return nil, fmt.Errorf("%w; %w", err, errUnknownOutcome)
	}
	reply, err := readReply(q.r)
	if fromServer := serverError(""); err != nil && !errors.As(err, &fromServer) {
		return nil, fmt.Errorf("%w; %w", err, errUnknownOutcome)
	}
	return reply, err
}

// explain says what was tried, and what would be right where the server's own words do not.
func (q *queue) explain(what string, err error) error {
	advice := ""
	var fromServer serverError
	if errors.As(err, &fromServer) {
		switch code, _, _ := strings.Cut(string(fromServer), " "); code {
		case "WRONGTYPE":
			advice = " (REDIS_LIST must name a list)"
		case "NOAUTH":
			advice = " (set REDIS_PASSWORD, and REDIS_USER where the server has users)"
		case "MOVED", "ASK":
			advice = " (the runner does not follow a Redis Cluster: set REDIS_HOST to the node that holds the list)"
		case "READONLY":
			advice = " (set REDIS_HOST to the primary)"
		}
	}
	return fmt.Errorf("%s the list %q: %w%s", what, q.config.list, err, advice)
}

func (q *queue) close() { _ = q.conn.Close() }

// patientConn gives each read and each write a time limit of its own, so that a large item may take as long as it needs
// while a dead server is noticed.
type patientConn struct{ net.Conn }

func (c patientConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(quietTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c patientConn) Write(p []byte) (int, error) {
	const step = 1 << 20
	written := 0
	for written < len(p) {
		if err := c.SetWriteDeadline(time.Now().Add(quietTimeout)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:min(written+step, len(p))])
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}
