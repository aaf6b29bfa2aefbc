package etcd

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// How a client fares when a server is not there.
const (
	// connectTimeout is how long a server may take to take a connection.
	connectTimeout = 4 * time.Second
	// reconnectMax is the longest pause between attempts to connect. The retries of a reading, about 25 milliseconds
	// apart, last longer than that, so that a reading finds a server that is back.
	reconnectMax = time.Second
	retries      = 60
	// A connection without a word for keepAlive, while an answer is awaited or a watch is open, is asked whether it still
	// lives, and is closed when it does not say so within keepAliveTimeout. Servers do not like to be asked more often
	// than every 5 seconds.
	keepAlive        = 10 * time.Second
	keepAliveTimeout = 4 * time.Second
	// maxAnswer is how many bytes a server may send at once; what etcd stores under a key is smaller by default.
	maxAnswer = 16 << 20
)

// connection is the client for some settings. It logs in itself: the client would wait for a server as soon as it is
// made and, with a token that a server of version 3.4 has forgotten in a restart, would ask for a new one without end,
// since it shows the old one with the request.
type connection struct {
	settings settings
	client   *clientv3.Client
	// token is what the servers gave for the password; nil before the first login.
	token atomic.Pointer[string]
	// turn holds one token; who has it may log in.
	turn chan struct{}
}

func newConnection(s settings) (*connection, error) {
	made := &connection{settings: s, turn: make(chan struct{}, 1)}
	made.turn <- struct{}{}
	config := clientv3.Config{
		Endpoints:            strings.Split(s.endpoints, ","),
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAliveTimeout,
		MaxUnaryRetries:      retries,
		MaxCallRecvMsgSize:   maxAnswer,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff: backoff.Config{
					BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax,
				},
				MinConnectTimeout: connectTimeout,
			}),
			grpc.WithChainUnaryInterceptor(made.ask),
			grpc.WithPerRPCCredentials(credentials{made}),
		},
	}
	var err error
	if s.useTLS {
		if config.TLS, err = s.tls.Config(); err != nil {
			return nil, err
		}
	}
	if made.client, err = clientv3.New(config); err != nil {
		return nil, s.explain(context.Background(), err)
	}
	return made, nil
}

// close ends the client.
func (c *connection) close() {
	_ = c.client.Close() // says only that its context has ended
}

// ask sends a question. It fails when there is no connection, so that the error says why, where the client would let it
// wait for one until its time is over; the client asks again, see retries. Where a login is missing or has expired, it
// logs in and asks once more.
func (c *connection) ask(
	ctx context.Context, method string, question, answer any, conn *grpc.ClientConn, next grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	options = append(options, grpc.WaitForReady(false))
	shown := c.token.Load()
	err := next(ctx, method, question, answer, conn, options...)
	if c.settings.username == "" || method == etcdserverpb.Auth_Authenticate_FullMethodName || !isLoggedOut(err) {
		return err
	}
	if err := c.login(ctx, shown); err != nil {
		return err
	}
	return next(ctx, method, question, answer, conn, options...)
}

// isLoggedOut tells whether the servers do not know who asks, or what has become of the user's rights.
func isLoggedOut(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) ||
		errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// login gets a token, unless another has got one in the place of the old one meanwhile.
func (c *connection) login(ctx context.Context, old *string) error {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { c.turn <- struct{}{} }()
	if c.token.Load() != old {
		return nil
	}
	answer, err := c.client.Authenticate(ctx, c.settings.username, c.settings.password)
	if errors.Is(err, rpctypes.ErrAuthNotEnabled) {
		return nil
	}
	if err != nil {
		return err
	}
	c.token.Store(&answer.Token)
	return nil
}

// credentials shows the token with everything but a login.
type credentials struct{ connection *connection }

// GetRequestMetadata implements gRPC's PerRPCCredentials. The last part of the URI is the service that is asked.
func (c credentials) GetRequestMetadata(_ context.Context, uri ...string) (map[string]string, error) {
	token := c.connection.token.Load()
	if token == nil || len(uri) > 0 && strings.HasSuffix(uri[0], "/"+etcdserverpb.Auth_ServiceDesc.ServiceName) {
		return nil, nil //nolint:nilnil // nothing is shown
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: *token}, nil
}

// RequireTransportSecurity implements gRPC's PerRPCCredentials: as everywhere with etcd, the user decides.
func (credentials) RequireTransportSecurity() bool { return false }
