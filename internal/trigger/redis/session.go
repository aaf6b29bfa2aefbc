package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// clientName is what CLIENT LIST shows.
const clientName = "offboard"

// Limits of one connection. A server that falls silent is given up after at most two keepAlive periods, of which the
// second begins with a PING, and answerTimeout.
const (
	connectTimeout = 4 * time.Second
	keepAlive      = 2 * time.Second
	answerTimeout  = 3 * time.Second
	// askTimeout bounds a question to a sentinel, or to a node about its cluster. Several can be asked while a
	// measurement waits.
	askTimeout  = 1500 * time.Millisecond
	bufferBytes = 64 << 10
	cacheBytes  = 32 << 20
)

// errHandshake marks errors of the TLS handshake.
var errHandshake = errors.New("TLS handshake")

// session is one TCP connection in the hands of one rueidis client. It never reconnects: when it is lost, all that was
// remembered by it is gone with it, and connection opens another.
type session struct {
	client   rueidis.Client
	settings settings
	address  string
	// tracked tells that the server says when a key that was read has changed; if not, untracked says why.
	tracked   bool
	untracked error
	conn      *guardedConn
	// asking tells that the server is to answer for a slot that is on its way to it.
	asking bool
}

// openFirst opens a session at the first server that can be used, or at the master that the first sentinel names whose
// answer is of use.
func openFirst(ctx context.Context, s settings, invalidated func([]string)) (*session, error) {
	var failure error
	for _, address := range s.servers() {
		opened, err := openAt(ctx, s, address, invalidated)
		if err == nil {
			return opened, nil
		}
		if failure != nil {
			err = fmt.Errorf("%w; %w", failure, err) // one line: it ends up in a status
		}
		failure = err
	}
	return nil, failure
}

// openAt opens a session at the server, or at the master that the sentinel names.
func openAt(ctx context.Context, s settings, address string, invalidated func([]string)) (*session, error) {
	if s.topology == sentinelTopology {
		return openMaster(ctx, s, address, invalidated)
	}
	opened, err := openSession(ctx, s, address, invalidated)
	if err != nil {
		return nil, explain(err, address, s)
	}
	return opened, nil
}

// openSession connects, authenticates, asks to be told of changes, and makes sure that the server works. Where the
// server cannot tell of changes, or the user may not ask for it, the session is without.
func openSession(ctx context.Context, s settings, address string, invalidated func([]string)) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if s.scripts {
		return openScripts(ctx, s, address)
	}
	opened, err := connect(ctx, s, address, sessionOptions(invalidated))
	if errors.Is(err, rueidis.ErrNoCache) {
		reason := err
		if opened, err = connect(ctx, s, address, sessionOptions(nil)); err == nil {
			opened.untracked = reason
		}
	}
	if err != nil {
		return nil, err
	}
	if err := opened.client.Do(ctx, opened.client.B().Ping().Build()).Error(); err != nil && !isNoPermission(err) {
		opened.close()
		return nil, err
	}
	return opened, nil
}

// openScripts opens a session for scripts, whose answers may be as large as items are.
func openScripts(ctx context.Context, s settings, address string) (*session, error) {
	options := sessionOptions(nil)
	options.ConnWriteTimeout = scriptTimeout
	return connect(ctx, s, address, options)
}

// sessionOptions are those of a shared session; without invalidated, one that is not told of changes.
func sessionOptions(invalidated func([]string)) rueidis.ClientOption {
	options := rueidis.ClientOption{
		Dialer:            net.Dialer{KeepAlive: keepAlive},
		ConnWriteTimeout:  answerTimeout,
		AlwaysPipelining:  true,
		CacheSizeEachConn: cacheBytes,
		DisableCache:      invalidated == nil,
	}
	if invalidated != nil {
		options.OnInvalidations = func(messages []rueidis.RedisMessage) {
			if messages == nil {
				invalidated(nil)
				return
			}
			keys := make([]string, 0, len(messages))
			for _, message := range messages {
				if key, err := message.ToString(); err == nil {
					keys = append(keys, key)
				}
			}
			invalidated(keys)
		}
	}
	return options
}

// connect makes a rueidis client on one new connection. The options say what differs between uses; all else is set
// here.
func connect(ctx context.Context, s settings, address string, options rueidis.ClientOption) (*session, error) {
	conn, err := dial(ctx, s, address)
	if err != nil {
		return nil, err
	}
	closing := newGuardedConn(conn)
	closing.incoming.large = s.scripts
	deadline, _ := ctx.Deadline()
	var used atomic.Bool
	options.InitAddress = []string{address}
	options.ForceSingleClient = true
	options.PipelineMultiplex, options.BlockingPipeline = -1, math.MaxInt // one connection, however many commands
	options.DisableRetry = true
	options.ClientName = clientName
	options.ClientSetInfo = rueidis.DisableClientSetInfo
	options.Username, options.Password, options.SelectDB = s.username, s.password, int(s.database)
	options.ReadBufferEachConn, options.WriteBufferEachConn = bufferBytes, bufferBytes
	options.Dialer.Timeout = max(time.Until(deadline), time.Millisecond)
	options.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
		if used.Swap(true) {
			return nil, net.ErrClosed
		}
		return closing, nil
	}
	// rueidis waits for the server's first answers without a context; closing the connection ends that wait.
	stop := context.AfterFunc(ctx, func() { _ = closing.Close() })
	client, err := rueidis.NewClient(options)
	opened := &session{
		client: client, settings: s, address: address, tracked: !options.DisableCache, conn: closing,
	}
	if err == nil && opened.tracked {
		// The command that precedes each tracked read; a user may be denied it, and rueidis would not notice.
		if denied := client.Do(ctx, client.B().ClientCaching().Yes().Build()).Error(); denied != nil {
			err = denied
			if isNoPermission(denied) {
				err = fmt.Errorf("%w: %w", denied, rueidis.ErrNoCache)
			}
		}
	}
	if err != nil {
		if client != nil {
			client.Close()
		}
		_ = closing.Close()
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	stop()
	return opened, nil
}

// dial connects to a host and port or to a unix socket, with TLS where asked for.
func dial(ctx context.Context, s settings, address string) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil || !s.withTLS {
		return conn, err
	}
	config, err := s.tls.Config()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		config.ServerName = host
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return secured, nil
}

// ask connects for one command, and returns the answer as rueidis's ToAny has it.
func ask(ctx context.Context, s settings, address string, command ...string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	options := sessionOptions(nil)
	options.ConnWriteTimeout = askTimeout
	opened, err := connect(ctx, s, address, options)
	if err != nil {
		return nil, err
	}
	defer opened.close()
	return opened.client.Do(ctx, opened.client.B().Arbitrary(command...).Build()).ToAny()
}

// do runs commands, one right after the other.
func (s *session) do(ctx context.Context, commands ...rueidis.Completed) []rueidis.RedisResult {
	if s.asking {
		asking := s.client.B().Asking().Build()
		return s.client.DoMulti(ctx, append([]rueidis.Completed{asking}, commands...)...)[1:]
	}
	return s.client.DoMulti(ctx, commands...)
}

// asked returns the session as it is to be used for a slot that is on its way to the server. What is read so is not
// remembered: the server need not tell of its changes.
func (s *session) asked() *session {
	asked := *s
	asked.asking, asked.tracked = true, false
	return &asked
}

// close ends the session; also of nil.
func (s *session) close() {
	if s != nil {
		s.client.Close()
	}
}

// explainUntracked logs why changes are noticed late, where that is news to an operator.
func (s *session) explainUntracked(ctx context.Context, log *slog.Logger, expected bool) {
	if s.tracked || expected {
		return
	}
	log.WarnContext(ctx, "Redis does not tell of changes, which are noticed at the next poll only; "+
		"that needs Redis 6 or later and a user who may run CLIENT TRACKING and CLIENT CACHING",
		"address", s.address, "reason", s.untracked)
}

// lost is closed when the connection is gone.
func (s *session) lost() <-chan struct{} { return s.conn.closed }

// silent tells of a lost connection that it was given up because nothing came, as opposed to an end that the peer or
// the network announced.
func (s *session) silent() bool { return !s.conn.failed.Load() }
