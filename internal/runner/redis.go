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

// link is one connection to the server of the list.
type link struct {
	config config
	conn   net.Conn
	r      *bufio.Reader
	// passwordUnused tells that a password was given to a server that has none.
	passwordUnused bool
}

// reach calls try, which connects, until it succeeds. It goes on for as long as patience lasts when the server cannot
// be reached or is just starting, but never once an item may have been taken. The end of ctx is heeded between calls.
func reach(ctx context.Context, c config, patience time.Duration, try func() error) error {
	deadline := time.Now().Add(patience)
	for delay := firstDelay; ; delay = min(2*delay, lastDelay) {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && !errors.Is(err, errUnknownOutcome) {
			return context.Cause(ctx)
		}
		if !passing(err) || time.Now().Add(delay).After(deadline) {
			return fmt.Errorf("redis at %s: %w", c.address(), err)
		}
		if err := pause(ctx, delay); err != nil {
			return err
		}
	}
}

// pause waits, or returns why ctx has ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
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
		code := errorCode(err)
		return code == "LOADING" || code == "MASTERDOWN" || code == "BUSY"
	case errors.Is(err, errUnknownOutcome), errors.Is(err, errProtocol),
		errors.As(err, &untrusted), errors.As(err, &fromTLS), errors.As(err, &alert):
		return false
	}
	return true
}

// connect makes a connection that is ready for commands on the list.
func connect(ctx context.Context, c config) (*link, error) {
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
	l := &link{config: c, conn: conn, r: bufio.NewReaderSize(conn, 16<<10)}
	if err := l.prepare(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// prepare logs in and selects the database. The list is not touched before both have succeeded.
func (l *link) prepare(ctx context.Context) error {
	defer context.AfterFunc(ctx, l.close)()
	var (
		request []byte
		replies []func(error) error
	)
	if l.config.user != "" || l.config.password != "" {
		login := []string{"AUTH"}
		if l.config.user != "" {
			login = append(login, l.config.user)
		}
		request = appendCommand(request, append(login, l.config.password)...)
		replies = append(replies, l.loggedIn)
	}
	if l.config.db != 0 {
		request = appendCommand(request, "SELECT", strconv.Itoa(l.config.db))
		replies = append(replies, func(err error) error {
			if err != nil {
				return fmt.Errorf("select the database %d that REDIS_DB names: %w", l.config.db, err)
			}
			return nil
		})
	}
	if len(replies) == 0 {
		return nil
	}
	if _, err := l.conn.Write(request); err != nil {
		return err
	}
	for _, check := range replies {
		_, err := readReply(l.r)
		if err := check(err); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) loggedIn(err error) error {
	if err == nil {
		return nil
	}
	// A server that asks for no password says so with an error. Everything works there all the same, and a manifest
	// with a password in it is meant to work unchanged against a server on a developer's machine.
	if text := err.Error(); strings.Contains(text, "without any password configured") ||
		strings.Contains(text, "no password is set") {
		l.passwordUnused = true
		return nil
	}
	if l.config.user != "" {
		return fmt.Errorf("log in as the user %q of REDIS_USER with REDIS_PASSWORD: %w", l.config.user, err)
	}
	return fmt.Errorf("log in with REDIS_PASSWORD: %w", err)
}

// do sends one command and returns its answer, which is not a list.
func (l *link) do(args ...string) ([]byte, error) { return ask(l, readReply, args) }

// doAny sends one command and returns its answer of any kind.
func (l *link) doAny(args ...string) (any, error) { return ask(l, readValue, args) }

func ask[T any](l *link, read func(*bufio.Reader) (T, error), args []string) (T, error) {
	var none T
	if _, err := l.conn.Write(appendCommand(nil, args...)); err != nil {
		return none, fmt.Errorf("%w; %w", err, errUnknownOutcome)
	}
	reply, err := read(l.r)
	if fromServer := serverError(""); err != nil && !errors.As(err, &fromServer) {
		return none, fmt.Errorf("%w; %w", err, errUnknownOutcome)
	}
	return reply, err
}

// explain says what was tried, and what would be right where the server's own words do not.
func (c config) explain(what string, err error) error {
	advice := ""
	switch code := errorCode(err); {
	case code == "WRONGTYPE":
		advice = " (REDIS_LIST must name a list)"
	case code == "NOAUTH", code != "" && strings.Contains(err.Error(), "unauthenticated"): // of a long command
		advice = " (set REDIS_PASSWORD, and REDIS_USER where the server has users)"
	case code == "MOVED", code == "ASK":
		advice = " (the runner does not follow a Redis Cluster: set REDIS_HOST to the node that holds the list)"
	case code == "READONLY":
		advice = " (set REDIS_HOST to the primary)"
	}
	return fmt.Errorf("%s the list %q: %w%s", what, c.list, err, advice)
}

// errorCode returns the first word of an error that the server answered with; "" of another error.
func errorCode(err error) string {
	var fromServer serverError
	if !errors.As(err, &fromServer) {
		return ""
	}
	code, _, _ := strings.Cut(string(fromServer), " ")
	return code
}

func (l *link) close() { _ = l.conn.Close() }

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
